//! The results: a table for people, `results.json` for programs.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::measured::{Bound, ITSELF, Measured};
use crate::{Options, machine};

/// Prints a section's table.
pub(crate) fn print(section: &str, measured: &[Measured]) {
    let header = ["what", "of", "over", "ratio", "spread", "must", "goal", "", "absolute"].map(str::to_owned);
    let mut rows = vec![header];
    for one in measured {
        for claim in &one.claims {
            let (lowest, highest) = one.spread(claim);
            let ratio = one.ratio(claim);
            let verdict = match (claim.must, claim.goal) {
                (Some(must), _) if !must.holds(ratio) => "FAIL",
                (_, Some(goal)) if goal.holds(ratio) => "pass, goal",
                (Some(_), _) => "pass",
                _ => "",
            };
            let bound = |bound: Option<Bound>| bound.map(Bound::text).unwrap_or_default();
            rows.push([
                one.what.clone(),
                claim.of.clone(),
                claim.over.clone(),
                format!("{ratio:.2}"),
                format!("{lowest:.2}–{highest:.2}"),
                bound(claim.must),
                bound(claim.goal),
                verdict.to_owned(),
                if claim.over == ITSELF {
                    format!("{:.0} {}", one.figure(&claim.of), one.unit)
                } else {
                    format!("{:.0} : {:.0} {}", one.figure(&claim.of), one.figure(&claim.over), one.unit)
                },
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    println!("\n{section}");
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("  {}", cells.join("  ").trim_end());
    }
    println!();
}

/// Writes a section's results beside those of the others.
pub(crate) fn write(options: &Options, section: &str, measured: &[Measured]) {
    let before = std::fs::read_to_string(&options.output).ok();
    let mut results: Value = before.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_else(|| json!({}));
    results[section] = json!({
        "date": OffsetDateTime::now_utc().format(&Rfc3339).unwrap(),
        "machine": machine::describe(),
        "rounds": options.rounds,
        "fsync": options.fsync,
        "measured": measured.iter().map(Measured::to_json).collect::<Vec<_>>(),
    });
    let text = serde_json::to_string_pretty(&results).unwrap();
    std::fs::write(&options.output, text + "\n").unwrap();
}
