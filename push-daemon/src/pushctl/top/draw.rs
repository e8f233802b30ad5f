//! From rows to the screen.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Block, Paragraph, Row, Table},
};

use super::view::View;

pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    let [left, right] = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(body);
    let [reasons_area, isps_area] = Layout::vertical([Constraint::Percentage(55), Constraint::Min(0)]).areas(left);
    // As many rows as there are shards, up to half of the screen: a host may have fifty.
    let shard_rows =
        if view.shards.is_empty() { 0 } else { view.shards.len().min(usize::from(body.height) / 2) as u16 + 3 };
    let [busiest_area, shards_area] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(shard_rows)]).areas(right);
    let state = if view.is_off { Style::new().fg(Color::Red).add_modifier(Modifier::BOLD) } else { Style::new() };
    frame.render_widget(Line::styled(format!("{} · {}", view.title, view.state), state), head);
    reasons(frame, reasons_area, view);
    isps(frame, isps_area, view);
    busiest(frame, busiest_area, view);
    shards(frame, shards_area, view);
    frame.render_widget(Paragraph::new("q quits"), foot);
}

fn reasons(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.reasons.iter().map(|row| {
        let colour = if row.drops { Color::Red } else { Color::Green };
        let observed = if row.observed_per_s > 0.0 { short(row.observed_per_s) } else { String::new() };
        Row::new([row.reason.to_owned(), short(row.packets_per_s), short(row.bits_per_s), observed])
            .style(Style::new().fg(colour))
    });
    table(frame, area, "Reasons, per second", ["REASON", "PACKETS", "BITS", "OBSERVED"], rows.collect());
}

fn isps(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.isps.iter().map(|row| {
        let rtt = row.rtt_us.map_or("-".into(), |rtt_us| format!("{:.1} ms", rtt_us as f64 / 1e3));
        let loss = row.loss.map_or("-".into(), |loss| format!("{:.2} %", loss * 100.0));
        let rates = [row.bits_per_s, row.policed_bits_per_s, row.sent_bits_per_s].map(short);
        let [bits_in, policed, bits_out] = rates;
        Row::new([row.name.clone(), bits_in, policed, bits_out, rtt, loss])
    });
    let heading = ["ISP", "BITS IN", "POLICED", "BITS OUT", "RTT", "LOSS"];
    table(frame, area, "ISPs, per second", heading, rows.collect());
}

fn busiest(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.busiest.iter().map(|row| {
        let style = if row.dropped_per_s > 0.0 { Style::new().fg(Color::Red) } else { Style::new() };
        Row::new([row.who.clone(), short(row.packets_per_s), short(row.dropped_per_s), row.why.clone()]).style(style)
    });
    table(frame, area, "Busiest sources and rules, per second", ["WHO", "PACKETS", "DROPPED", "WHY"], rows.collect());
}

fn shards(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.shards.iter().map(|row| {
        let style = if row.state == "open" { Style::new() } else { Style::new().fg(Color::Yellow) };
        Row::new([row.shard.clone(), row.cpu.clone(), row.connections.to_string(), row.state.to_owned()]).style(style)
    });
    table(frame, area, "Shards", ["SHARD", "CPU", "CONNS", "STATE"], rows.collect());
}

fn table<const N: usize>(frame: &mut Frame<'_>, area: Rect, title: &str, heading: [&str; N], rows: Vec<Row<'_>>) {
    // The first column names something, the others are short.
    let widths: [_; N] = std::array::from_fn(|at| if at == 0 { Constraint::Min(14) } else { Constraint::Min(9) });
    let heading = Row::new(heading.map(str::to_owned)).style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(rows, widths).header(heading).block(Block::bordered().title(title)), area);
}

/// A number in at most six characters: `0`, `12.3k`, `456M`.
fn short(value: f64) -> String {
    let (mut value, mut unit) = (value, 0);
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0}{}", UNITS[unit])
    } else {
        format!("{value:.1}{}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::{
        super::view::{BusyRow, IspRow, ReasonRow, ShardRow},
        *,
    };

    #[test]
    fn every_part_is_on_the_screen() {
        let view = View {
            title: "pushctl top · eth0 (driver)".into(),
            state: "enforcing · on trial for 42 s".into(),
            is_off: false,
            reasons: vec![ReasonRow {
                reason: "denied",
                drops: true,
                packets_per_s: 123_456.0,
                bits_per_s: 5e9,
                observed_per_s: 0.0,
            }],
            isps: vec![IspRow {
                name: "north".into(),
                bits_per_s: 1e6,
                policed_bits_per_s: 7.0,
                sent_bits_per_s: 3e7,
                rtt_us: Some(12_300),
                loss: Some(0.015),
            }],
            busiest: vec![BusyRow {
                who: "203.0.113.0/24".into(),
                packets_per_s: 12_300.0,
                dropped_per_s: 12_300.0,
                why: "deny scanners".into(),
            }],
            shards: vec![ShardRow { shard: "17".into(), cpu: "1".into(), state: "draining", connections: 19_000 }],
        };
        let mut terminal = Terminal::new(TestBackend::new(120, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &view)).unwrap();
        let screen = terminal.backend().to_string();
        for word in
            ["eth0 (driver)", "42 s", "denied", "123k", "5.0G", "north", "1.0M", "203.0.113.0/24", "deny scanners"]
        {
            assert!(screen.contains(word), "{word} is not in\n{screen}");
        }
        // A screen too small for anything is no reason to panic.
        Terminal::new(TestBackend::new(3, 2)).unwrap().draw(|frame| draw(frame, &view)).unwrap();
    }

    #[test]
    fn a_number_is_short() {
        assert_eq!([0.0, 999.0, 999.9, 12_340.0, 5e9].map(short), ["0", "999", "1.0k", "12.3k", "5.0G"]);
    }
}
