//! `OpenMetrics` 1.0 (<https://github.com/OpenObservability/OpenMetrics>), for those who ask for it.
//!
//! It differs from the older text format in small things: `# TYPE` names a counter without `_total`, every
//! number of a bucket is written as a float, and `# EOF` ends the text.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

/// The content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether an `Accept` header prefers `OpenMetrics` to the older text format.
pub fn preferred(accept: &str) -> bool {
    let weight = |wanted: &str| {
        accept
            .split(',')
            .map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default();
                let q = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
                (kind, q.unwrap_or(0.0))
            })
            .filter(|(kind, _)| kind.eq_ignore_ascii_case(wanted))
            .map(|(_, q)| q)
            .fold(0.0_f32, f32::max)
    };
    let wanted = weight("application/openmetrics-text");
    wanted > 0.0 && wanted >= weight("text/plain")
}

/// Writes the families.
pub fn encode(families: &[MetricFamily]) -> String {
    let mut out = String::new();
    for family in families {
        let kind = family.get_field_type();
        let counter = kind == MetricType::COUNTER;
        let full = family.name();
        let name = if counter { full.strip_suffix("_total").unwrap_or(full) } else { full };
        let word = match kind {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            // Not used by the guardian, and without a faithful counterpart here.
            MetricType::SUMMARY | MetricType::UNTYPED => continue,
        };
        let _ = writeln!(out, "# HELP {name} {}", escape(family.help()));
        let _ = writeln!(out, "# TYPE {name} {word}");
        for metric in family.get_metric() {
            let labels = metric.get_label();
            match kind {
                MetricType::COUNTER => {
                    sample(
                        &mut out,
                        &format!("{name}_total"),
                        labels,
                        None,
                        metric.get_counter().get_value(),
                    );
                }
                MetricType::GAUGE => sample(&mut out, name, labels, None, metric.get_gauge().get_value()),
                _ => {
                    let histogram = metric.get_histogram();
                    let count = histogram.get_sample_count() as f64;
                    let bucket = format!("{name}_bucket");
                    for part in histogram.get_bucket().iter().filter(|b| b.upper_bound().is_finite()) {
                        let le = float(part.upper_bound());
                        sample(&mut out, &bucket, labels, Some(&le), part.cumulative_count() as f64);
                    }
                    sample(&mut out, &bucket, labels, Some("+Inf"), count);
                    sample(&mut out, &format!("{name}_sum"), labels, None, histogram.get_sample_sum());
                    sample(&mut out, &format!("{name}_count"), labels, None, count);
                }
            }
        }
    }
    out += "# EOF\n";
    out
}

fn sample(out: &mut String, name: &str, labels: &[LabelPair], le: Option<&str>, value: f64) {
    *out += name;
    let mut pairs: Vec<String> =
        labels.iter().map(|pair| format!("{}=\"{}\"", pair.name(), escape(pair.value()))).collect();
    pairs.extend(le.map(|le| format!("le=\"{le}\"")));
    if !pairs.is_empty() {
        let _ = write!(out, "{{{}}}", pairs.join(","));
    }
    // Whole numbers need no fraction outside of `le`.
    let _ = writeln!(out, " {value}");
}

/// The canonical form of a bucket's bound: `1.0`, `0.0001`, `1e-05`.
fn float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once("e-") {
        Some((digits, exponent)) if exponent.len() == 1 => format!("{digits}e-0{exponent}"),
        _ => text,
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::{metrics::Metrics, sample};

    #[test]
    fn follows_the_format() {
        let metrics = Metrics::new("0.1.0", "abc").unwrap();
        metrics.record(&sample::networkd(1));
        let text = encode(&metrics.gather());
        assert!(text.ends_with("\n# EOF\n"));
        for line in [
            "# TYPE route_guardian_deletions counter",
            "route_guardian_deletions_total{cause=\"request\",family=\"inet\",object=\"route\",verdict=\"foreign\"} 1",
            "# TYPE route_guardian_outage_seconds histogram",
            "route_guardian_outage_seconds_bucket{object=\"route\",le=\"0.0001\"} 1",
            "route_guardian_outage_seconds_bucket{object=\"route\",le=\"300.0\"} 1",
            "route_guardian_outage_seconds_bucket{object=\"route\",le=\"+Inf\"} 1",
            "route_guardian_outage_seconds_sum{object=\"route\"} 0.000071",
            "route_guardian_outage_seconds_count{object=\"route\"} 1",
            "route_guardian_detection_seconds_bucket{object=\"route\",le=\"1e-05\"} 0",
            "route_guardian_config_last_reload_successful 1",
            "# TYPE process_cpu_seconds counter",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            assert!(!line.contains("_total"), "{line}");
        }
        assert!(!text.contains("\n\n"));
    }

    #[test]
    fn the_accept_header_decides() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
                          q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(preferred(prometheus));
        assert!(preferred("application/openmetrics-text"));
        for other in
            ["", "*/*", "text/plain", "text/html,*/*", "application/openmetrics-text;q=0.3,text/plain"]
        {
            assert!(!preferred(other), "{other}");
        }
        assert!(!preferred("application/openmetrics-text;q=0"));
    }
}
