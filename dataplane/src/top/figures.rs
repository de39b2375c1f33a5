//! What a page of metrics says, as far as it is asked for here.

use std::collections::BTreeMap;

/// Figures by name, and by the value of each label.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures(BTreeMap<String, Vec<(String, f64)>>);

impl Figures {
    /// Lines that are no figures are passed over.
    pub(super) fn read(page: &str) -> Self {
        let mut all: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            if let Ok(value) = value.parse() {
                let figures = all.entry(name.to_owned()).or_default();
                figures.push((labels.to_owned(), value));
            }
        }
        Self(all)
    }

    /// Over all series; 0 where there are none.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.sum_of(name, "")
    }

    /// Over those with this in their labels, as in `application="web"`.
    pub(super) fn sum_of(&self, name: &str, label: &str) -> f64 {
        let series = self.0.get(name).into_iter().flatten();
        let meant = series.filter(|(labels, _)| labels.contains(label));
        meant.fold(0.0, |sum, (_, value)| sum + value)
    }
}
