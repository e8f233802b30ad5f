//! What was sent, what became of it, and whether what each member heard agrees with that.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Who sent a message: `p3` is the fourth publisher, `t12` a client that talks.
pub(crate) type Sender = String;

/// A message, by its sender and its number there.
pub(crate) type Name = (Sender, u32);

/// What its sender knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Answered with code 0: it arrives exactly once.
    Accepted,
    /// No answer came: it arrives once or not at all.
    Unanswered,
    /// Answered with another code: the sender was told that it is not there.
    Refused,
}

/// Everything that was sent, by room. Numbers of one sender ascend in the order of sending.
#[derive(Default)]
pub(crate) struct Account {
    rooms: BTreeMap<String, HashMap<Name, Fate>>,
}

/// The figures of a campaign.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Messages that were answered with code 0.
    pub(crate) accepted: usize,
    /// Messages that got no answer.
    pub(crate) unanswered: usize,
    /// Of those, how many arrived all the same.
    pub(crate) unanswered_but_heard: usize,
    /// Messages that were refused.
    pub(crate) refused: usize,
    /// Messages that all members together heard.
    pub(crate) heard: usize,
}

impl Account {
    pub(crate) fn enter(&mut self, room: &str, sender: &str, number: u32, fate: Fate) {
        self.rooms.entry(room.to_owned()).or_default().insert((sender.to_owned(), number), fate);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (room, messages) in other.rooms {
            self.rooms.entry(room).or_default().extend(messages);
        }
    }

    /// Holds what the members of `room` heard against what was sent there.
    ///
    /// # Errors
    /// The first disagreement.
    pub(crate) fn settle(
        &self,
        room: &str,
        members: &[(String, Vec<Name>)],
        totals: &mut Totals,
    ) -> Result<(), String> {
        let nothing = HashMap::new();
        let sent = self.rooms.get(room).unwrap_or(&nothing);
        for (member, heard) in members {
            once(sent, heard)
                .and_then(|()| in_order(sent, heard))
                .map_err(|what| format!("{room}, {member}: {what}"))?;
        }
        // The bus has one order per room, and all see it.
        for pair in members.windows(2) {
            let (first, second) = (&pair[0], &pair[1]);
            if let Some(at) = (0..first.1.len().max(second.1.len())).find(|at| first.1.get(*at) != second.1.get(*at)) {
                let (one, other) = (first.1.get(at), second.1.get(at));
                return Err(format!("{room}: message {at} is {one:?} at {} and {other:?} at {}", first.0, second.0));
            }
        }
        let count = |fate| sent.values().filter(|is| **is == fate).count();
        totals.accepted += count(Fate::Accepted);
        totals.unanswered += count(Fate::Unanswered);
        totals.refused += count(Fate::Refused);
        totals.heard += members.iter().map(|(_, heard)| heard.len()).sum::<usize>();
        let heard = members.first().map_or(&[][..], |(_, heard)| heard);
        totals.unanswered_but_heard += heard.iter().filter(|name| sent[*name] == Fate::Unanswered).count();
        Ok(())
    }
}

fn once(sent: &HashMap<Name, Fate>, heard: &[Name]) -> Result<(), String> {
    let mut seen = HashSet::with_capacity(heard.len());
    for name in heard {
        if !seen.insert(name) {
            return Err(format!("heard {name:?} twice"));
        }
        match sent.get(name) {
            Some(Fate::Accepted | Fate::Unanswered) => {}
            Some(Fate::Refused) => return Err(format!("heard {name:?}, which was refused")),
            None => return Err(format!("heard {name:?}, which nobody sent there")),
        }
    }
    let is_lost = |(name, fate): &(&Name, &Fate)| **fate == Fate::Accepted && !seen.contains(*name);
    let mut lost: Vec<&Name> = sent.iter().filter(is_lost).map(|(name, _)| name).collect();
    lost.sort();
    match lost.len() {
        0 => Ok(()),
        count => Err(format!("{count} accepted messages never came, the first of them {:?}", &lost[..count.min(5)])),
    }
}

/// One that got no answer may still be on its way when its sender goes on, so only the answered ones have an order.
fn in_order(sent: &HashMap<Name, Fate>, heard: &[Name]) -> Result<(), String> {
    let mut last: HashMap<&str, u32> = HashMap::new();
    for (sender, number) in heard.iter().filter(|name| sent[*name] == Fate::Accepted) {
        if let Some(before) = last.insert(sender, *number).filter(|before| before >= number) {
            return Err(format!("{sender}'s {number} came behind its {before}"));
        }
    }
    Ok(())
}

mod tests {
    use super::*;

    fn verdict(heard: &[&[u32]]) -> Result<Totals, String> {
        let mut account = Account::default();
        for (number, fate) in
            [(0, Fate::Accepted), (1, Fate::Unanswered), (2, Fate::Accepted), (3, Fate::Refused), (4, Fate::Accepted)]
        {
            account.enter("live://1", "p0", number, fate);
        }
        let members: Vec<(String, Vec<Name>)> = heard
            .iter()
            .enumerate()
            .map(|(member, numbers)| {
                (format!("member {member}"), numbers.iter().map(|number| ("p0".to_owned(), *number)).collect())
            })
            .collect();
        let mut totals = Totals::default();
        account.settle("live://1", &members, &mut totals).map(|()| totals)
    }

    #[test]
    fn each_kind_of_disagreement_is_found() {
        let totals = verdict(&[&[0, 1, 2, 4], &[0, 1, 2, 4]]).expect("this is as it should be");
        assert_eq!((totals.accepted, totals.unanswered, totals.unanswered_but_heard), (3, 1, 1));
        assert_eq!((totals.refused, totals.heard), (1, 8));
        assert!(verdict(&[&[0, 2, 4]]).is_ok(), "what got no answer need not come");
        for (heard, complaint) in [
            (&[&[0, 2, 2, 4][..]][..], "twice"),
            (&[&[0, 4]], "never came"),
            (&[&[0, 2, 3, 4]], "refused"),
            (&[&[0, 2, 4, 5]], "nobody sent"),
            (&[&[0, 4, 2]], "came behind"),
            (&[&[0, 2, 4], &[0, 1, 2, 4]], "message 1 is"),
            (&[&[0, 2, 4], &[0, 2, 4, 1]], "message 3 is"),
        ] {
            let said = verdict(heard).expect_err(complaint);
            assert!(said.contains(complaint), "{heard:?}: {said}");
        }
    }
}
