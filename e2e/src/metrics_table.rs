//! `docs/metrics.md`: tables of all metrics, held against what the programs show. With `UPDATE_METRICS` set they are written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// What the page says of a metric.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metric {
    kind: String,
    help: String,
    /// Those that its series were seen with.
    labels: BTreeSet<String>,
}

/// By the name that one asks for.
pub type Metrics = BTreeMap<String, Metric>;

/// Reads a page of metrics in the OpenMetrics text format.
#[must_use]
pub fn parse(page: &str) -> Metrics {
    let mut families: BTreeMap<String, Metric> = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, help)) = described(line, "# HELP ") {
            help.trim_end_matches('.')
                .clone_into(&mut families.entry(name.to_owned()).or_default().help);
        } else if let Some((name, kind)) = described(line, "# TYPE ") {
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().kind);
        } else if let Some((series, labels)) = line.split_once('{') {
            let family = families
                .iter_mut()
                .rfind(|(name, _)| series.starts_with(name.as_str()));
            if let Some((_, metric)) = family {
                metric.labels.extend(label_names(labels));
            }
        }
    }
    let asked_for = |(name, metric): (String, Metric)| match metric.kind.as_str() {
        "counter" => (format!("{name}_total"), metric),
        "info" => (format!("{name}_info"), metric),
        _ => (name, metric),
    };
    families.into_iter().map(asked_for).collect()
}

fn described<'a>(line: &'a str, what: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(what)?.split_once(' ')
}

/// Of `name="value",name="value"} figure`, but for the bounds of histograms.
fn label_names(mut labels: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    while let Some((name, rest)) = labels.split_once("=\"") {
        names.insert(name.trim_start_matches(',').to_owned());
        let mut escaped = false;
        let end = rest.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        labels = end.map_or("", |end| &rest[end + 1..]);
    }
    names.remove("le");
    names
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")
}

/// The lines between the marks of a part, and what is around them.
fn part<'a>(text: &'a str, part: &str) -> Result<(&'a str, &'a str, &'a str)> {
    let (begin, end) = (
        format!("<!-- {part} -->\n"),
        format!("<!-- end of {part} -->"),
    );
    let from = text.find(&begin).with_context(|| format!("no {begin}"))? + begin.len();
    let until = text.find(&end).with_context(|| format!("no {end}"))?;
    Ok((&text[..from], &text[from..until], &text[until..]))
}

fn row(name: &str, metric: &Metric) -> String {
    let labels: Vec<String> = metric
        .labels
        .iter()
        .map(|label| format!("`{label}`"))
        .collect();
    format!(
        "| `{name}` | {} | {} | {} |\n",
        metric.kind,
        labels.join(", "),
        metric.help
    )
}

fn table(metrics: &Metrics) -> String {
    let rows = metrics.iter().map(|(name, metric)| row(name, metric));
    format!(
        "\n| metric | type | labels | what |\n| --- | --- | --- | --- |\n{}\n",
        rows.collect::<String>()
    )
}

/// Metrics of a part, as they are documented.
fn documented(text: &str) -> Metrics {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let metric = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells
            .get(3)?
            .split(", ")
            .map(|label| label.trim_matches('`'));
        let metric = Metric {
            kind: (*cells.get(2)?).to_owned(),
            labels: labels
                .filter(|label| !label.is_empty())
                .map(str::to_owned)
                .collect(),
            help: (*cells.get(4)?).to_owned(),
        };
        Some((cells.get(1)?.trim_matches('`').to_owned(), metric))
    };
    rows.filter_map(metric).collect()
}

/// Names of all documented metrics.
pub fn all() -> Result<BTreeSet<String>> {
    Ok(documented(&std::fs::read_to_string(path())?)
        .into_keys()
        .collect())
}

/// Fails unless the table of a part is what was shown. `unseen`: what a test cannot bring about stays as it is documented.
pub fn hold(name: &str, mut shown: Metrics, unseen: &[&str]) -> Result<()> {
    let text = std::fs::read_to_string(path())?;
    let (before, now, after) = part(&text, name)?;
    let known = documented(now);
    for (name, metric) in &known {
        match shown.get_mut(name) {
            // Which series there are is a matter of chance.
            Some(shown) => shown.labels.extend(metric.labels.iter().cloned()),
            None if unseen.contains(&name.as_str()) => {
                drop(shown.insert(name.clone(), metric.clone()))
            }
            None => {}
        }
    }
    let wanted = table(&shown);
    if std::env::var_os("UPDATE_METRICS").is_some() {
        std::fs::write(path(), format!("{before}{wanted}{after}"))?;
        return Ok(());
    }
    let (documented, shown): (BTreeSet<&str>, BTreeSet<&str>) =
        (now.lines().collect(), wanted.lines().collect());
    let stale: Vec<_> = documented.difference(&shown).collect();
    let missing: Vec<_> = shown.difference(&documented).collect();
    ensure!(
        now == wanted,
        "docs/metrics.md, {name}: run the test with UPDATE_METRICS=1; stale {stale:#?}, missing {missing:#?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_as_one_asks_for_their_metrics() {
        let page = "# HELP a_b Things done.\n# TYPE a_b counter\na_b_total{kind=\"x\",of=\"y\\\", z=\"} 1\n\
                    # HELP a_bc_seconds Time.\n# TYPE a_bc_seconds histogram\na_bc_seconds_bucket{le=\"1\"} 0\n# EOF\n";
        let metrics = parse(page);
        let named = |name: &str| metrics[name].labels.iter().cloned().collect::<Vec<_>>();
        assert_eq!(
            metrics.keys().collect::<Vec<_>>(),
            ["a_b_total", "a_bc_seconds"]
        );
        assert_eq!(
            (named("a_b_total"), named("a_bc_seconds")),
            (vec!["kind".to_owned(), "of".to_owned()], vec![])
        );
        assert_eq!(metrics["a_b_total"].help, "Things done");
        assert_eq!(documented(&table(&metrics)), metrics);
    }
}
