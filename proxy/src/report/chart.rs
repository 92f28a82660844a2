//! The charts of a report, as SVG in the page: no script, sized in per cent, so that text keeps its size.
//!
//! Nothing is told by colour alone: what was denied is hatched, what a bar is about stands beside it.

use maud::{Markup, html};
use policy::report::{Bucket, DestinationRow, Moment, Report, Timeline};
use policy::verdict::Class;

use super::words;
use crate::shown::{Shown, bytes, count};

/// Destinations drawn before the rest is left to the table.
const DRAWN: usize = 10;
/// Height of a panel of the timeline, in pixels, and what is above and below its bars.
const PANEL: f64 = 88.0;
const ABOVE: f64 = 22.0;
const GAP: f64 = 34.0;
/// Height of a destination, and of the bar in it.
const ROW: usize = 38;
const BAR: usize = 9;
/// What is there is seen, however little it is beside the greatest.
const LEAST: f64 = 2.0;
/// A day, in microseconds.
const DAY: i64 = 86_400 * 1_000_000;
/// Characters of a destination's name.
const NAME: usize = 34;

/// Patterns by which what was denied and what is unknown are told without colour.
pub(super) fn patterns() -> Markup {
    html! {
        svg .defs width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect .denied width="6" height="6" {}
                    line .stripe x1="0" y1="0" x2="0" y2="6" stroke-width="3" {}
                }
                pattern #bars width="4" height="4" patternUnits="userSpaceOnUse" {
                    rect .unknown width="4" height="4" {}
                    line .stripe x1="3.5" y1="0" x2="3.5" y2="4" stroke-width="1" {}
                }
            }
        }
    }
}

/// Requests and bytes over time.
pub(super) fn timeline(timeline: &Timeline) -> Markup {
    let buckets = &timeline.buckets;
    let requests = buckets.iter().map(|bucket| bucket.requests).max().unwrap_or(0);
    let up = buckets.iter().map(|bucket| bucket.bytes_up).max().unwrap_or(0);
    let second = ABOVE + PANEL + GAP;
    let height = second + PANEL + GAP - 8.0;
    let denied: u64 = buckets.iter().map(|bucket| bucket.denied).sum();
    let all: u64 = buckets.iter().map(|bucket| bucket.requests).sum();
    let step = words::step(timeline.bucket_seconds);
    html! {
        svg .chart role="img" aria-labelledby="timeline-title timeline-desc" width="100%" height=(height) {
            title #timeline-title { "Requests and bytes sent over time" }
            desc #timeline-desc {
                (count(all, "request")) ", " (denied) " of them denied, in steps of " (step) ". "
                "At most " (requests) " requests and " (bytes(up)) " sent in one step."
            }
            (panel("Requests", &format!("most in {step}: {requests}"), 0.0))
            @for (number, bucket) in buckets.iter().enumerate() { (step_of_requests(buckets.len(), number, bucket, requests)) }
            (panel("Bytes sent", &format!("most in {step}: {}", bytes(up)), second - ABOVE))
            @for (number, bucket) in buckets.iter().enumerate() {
                (bar(buckets.len(), number, second + PANEL, tall(bucket.bytes_up, up), "sent"))
            }
            (axis(timeline, second + PANEL + 16.0))
        }
    }
}

/// Title, greatest value and base line of a panel.
fn panel(title: &str, most: &str, top: f64) -> Markup {
    let base = top + ABOVE + PANEL + 0.5;
    html! {
        text .panel x="0" y=(top + 12.0) { (title) }
        text .soft x="100%" y=(top + 12.0) text-anchor="end" { (most) }
        line .base x1="0" x2="100%" y1=(base) y2=(base) {}
    }
}

/// The bars of one step: allowed below, held above it, denied on top.
fn step_of_requests(steps: usize, number: usize, bucket: &Bucket, most: u64) -> Markup {
    let mut base = ABOVE + PANEL;
    let mut parts = Vec::new();
    for (value, class) in
        [(bucket.allowed, "allowed"), (bucket.held, "held"), (bucket.denied, "denied-hatch")]
    {
        let height = tall(value, most);
        parts.push(bar(steps, number, base, height, class));
        base -= height;
    }
    html! { @for part in &parts { (part) } }
}

fn bar(steps: usize, number: usize, base: f64, height: f64, class: &str) -> Markup {
    let step = 100.0 / steps.max(1) as f64;
    // A lone step would else be one block as wide as the page.
    let width = (step * 0.82).min(12.0);
    let x = step * number as f64 + (step - width) / 2.0;
    html! {
        @if height > 0.0 {
            rect class=(class) x=(format!("{x:.3}%")) width=(format!("{width:.3}%"))
                y=(format!("{:.1}", base - height)) height=(format!("{height:.1}")) {}
        }
    }
}

fn tall(value: u64, most: u64) -> f64 {
    match value {
        0 => 0.0,
        _ => (value as f64 / most.max(1) as f64 * (PANEL - 2.0 * LEAST)).max(LEAST),
    }
}

/// Where the period begins and ends, and its middle where there is one.
fn axis(timeline: &Timeline, y: f64) -> Markup {
    let Some(first) = timeline.buckets.first() else { return html! {} };
    let length = timeline.bucket_seconds * 1_000_000;
    let steps = timeline.buckets.len();
    let end = Moment(first.start.0 + length * steps as i64);
    let middle = (steps >= 4).then(|| Moment(first.start.0 + length * steps as i64 / 2));
    let format = match (first.start, end) {
        (Moment(first), Moment(end)) if end - first > 2 * DAY => "%Y-%m-%d",
        (Moment(first), Moment(end)) if first.div_euclid(DAY) == end.div_euclid(DAY) => "%H:%M:%S",
        _ => "%m-%d %H:%M",
    };
    let tick = |moment| words::time_as(moment, format);
    html! {
        text .soft x="0" y=(y) { (tick(first.start)) }
        @if let Some(middle) = middle { text .soft x="50%" y=(y) text-anchor="middle" { (tick(middle)) } }
        text .soft x="100%" y=(y) text-anchor="end" { (tick(end)) }
    }
}

/// Bytes sent, by destination.
pub(super) fn destinations(report: &Report) -> Markup {
    let rows: Vec<&DestinationRow> =
        report.destinations.rows.iter().filter(|row| row.amount.bytes_up > 0).take(DRAWN).collect();
    let most = rows.first().map_or(0, |row| row.amount.bytes_up);
    html! {
        svg .chart role="img" aria-labelledby="sent-title sent-desc" width="100%" height=(rows.len() * ROW) {
            title #sent-title { "Bytes sent by destination" }
            desc #sent-desc {
                @for row in &rows { (Shown(&row.destination)) ": " (bytes(row.amount.bytes_up)) ". " }
            }
            @for (number, row) in rows.iter().enumerate() { (destination(row, number * ROW, most)) }
        }
    }
}

fn destination(row: &DestinationRow, top: usize, most: u64) -> Markup {
    let share = (row.amount.bytes_up as f64 / most.max(1) as f64 * 100.0).max(0.4);
    let name = Shown(&row.destination).to_string();
    html! {
        text x="0" y=(top + 13) {
            (words::cut(&name, NAME)) " "
            tspan .soft { (row.class) }
        }
        text .soft x="100%" y=(top + 13) text-anchor="end" { (bytes(row.amount.bytes_up)) }
        rect .track x="0" y=(top + 19) width="100%" height=(BAR) rx="2" {}
        rect class=(fill(row.class)) x="0" y=(top + 19) width=(format!("{share:.3}%")) height=(BAR) rx="2" {}
    }
}

fn fill(class: Class) -> &'static str {
    match class {
        Class::Model => "model",
        Class::Tool => "tool",
        Class::Unknown => "unknown-bars",
    }
}
