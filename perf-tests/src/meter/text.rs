//! The formats of /proc: `Name: 123 kB`, columns, and a row of names above a row of figures.
//!
//! They read text and know no file. What is not there is `None`; nothing here fails or panics.

/// What stands behind `name:`, trimmed.
pub(super) fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// The figure behind `name:`, without its unit.
pub(super) fn keyed(text: &str, name: &str) -> Option<u64> {
    column(line(text, name)?, 0)
}

/// The figure in column `index`, from 0.
pub(super) fn column(text: &str, index: usize) -> Option<u64> {
    text.split_whitespace().nth(index)?.parse().ok()
}

/// The figure under `name` in the two rows that begin with `section:` (/proc/net/snmp, /proc/net/netstat).
pub(super) fn under(text: &str, section: &str, name: &str) -> Option<u64> {
    let mut rows = text.lines().filter_map(|line| line.strip_prefix(section)?.strip_prefix(':'));
    let (names, figures) = (rows.next()?, rows.next()?);
    let at = names.split_whitespace().position(|column| column == name)?;
    column(figures, at)
}

/// The figure behind the word `name` in the line that begins with `section:` (/proc/net/sockstat).
pub(super) fn after(text: &str, section: &str, name: &str) -> Option<u64> {
    let mut words = line(text, section)?.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATUS: &str = "Name:\tpush-daemon\nPid:\t42\nVmRSS:\t  1760 kB\nRssAnon:\t     112 kB\n\
                          voluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
    const SNMP: &str = "Ip: Forwarding InReceives\nIp: 1 55\nTcp: RtoAlgorithm MaxConn RetransSegs\nTcp: 1 -1 9\n";
    const SOCKSTAT: &str = "sockets: used 26\nTCP: inuse 2 orphan 0 tw 5 alloc 2 mem 183\nTCP6: inuse 1\n";

    #[test]
    fn figures_are_found_by_name() {
        type Row = (&'static str, Option<u64>, Option<u64>);
        let rows: [Row; 14] = [
            ("with a unit", keyed(STATUS, "VmRSS"), Some(1760)),
            ("a name that ends another", keyed(STATUS, "voluntary_ctxt_switches"), Some(7)),
            ("the longer of the two", keyed(STATUS, "nonvoluntary_ctxt_switches"), Some(3)),
            ("a text is no figure", keyed(STATUS, "Name"), None),
            ("a name cut short", keyed(STATUS, "VmRS"), None),
            ("not there", keyed(STATUS, "VmSwap"), None),
            ("first column", column("812 33 4\n", 0), Some(812)),
            ("beyond the last column", column("812 33 4\n", 3), None),
            ("under a name", under(SNMP, "Tcp", "RetransSegs"), Some(9)),
            ("under a name of another section", under(SNMP, "Ip", "RetransSegs"), None),
            ("a negative one", under(SNMP, "Tcp", "MaxConn"), None),
            ("names without figures", under("Tcp: A B\n", "Tcp", "A"), None),
            ("after a word", after(SOCKSTAT, "TCP", "mem"), Some(183)),
            ("after a word that is not there", after(SOCKSTAT, "TCP6", "mem"), None),
        ];
        for (name, found, expected) in rows {
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(line(STATUS, "Name"), Some("push-daemon"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(?s).{0,200}", lines in "([A-Z][a-z]{0,2}:[ 0-9a-z\t-]{0,9}\n){0,5}") {
            for text in [&text, &lines] {
                for name in ["", "A", "Ab", ":"] {
                    let found = line(text, name);
                    prop_assert!(found.is_none_or(|found| text.contains(found)));
                    for figure in [keyed(text, name), under(text, name, "a"), after(text, name, "a")] {
                        prop_assert!(figure.is_none_or(|figure| text.contains(&figure.to_string())
                            || text.contains("+") || text.contains("0")));
                    }
                }
            }
        }

        #[test]
        fn what_was_written_is_read_back(figures in proptest::collection::vec(any::<u64>(), 1..8)) {
            let names: Vec<String> = (0..figures.len()).map(|n| format!("Name{n}")).collect();
            let row = |words: Vec<String>| format!("Tcp: {}\n", words.join(" "));
            let table = row(names.clone()) + &row(figures.iter().map(u64::to_string).collect());
            let pairs: String = names.iter().zip(&figures).map(|(name, figure)| format!(" {name} {figure}")).collect();
            let lines: String = names.iter().zip(&figures).map(|(name, figure)| format!("{name}:\t{figure} kB\n")).collect();
            for (name, figure) in names.iter().zip(&figures) {
                prop_assert_eq!(under(&table, "Tcp", name), Some(*figure));
                prop_assert_eq!(after(&format!("TCP:{pairs}\n"), "TCP", name), Some(*figure));
                prop_assert_eq!(keyed(&lines, name), Some(*figure));
            }
        }
    }
}
