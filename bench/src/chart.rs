//! A page with the ratios as bars, without anything from elsewhere.

use std::fmt::Write;

use crate::report::{Ratio, Report, number};

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#222}
h2{margin:2rem 0 .5rem}
.row{display:grid;grid-template-columns:17rem 1fr 8rem;gap:.8rem;align-items:center;margin:.15rem 0}
.row>:first-child{font-family:ui-monospace,monospace;font-size:13px}
.track{position:relative;height:1.1rem;background:#eee;border-radius:3px}
.bar{position:absolute;inset:0 auto 0 0;border-radius:3px}
.reached{background:#2e8b57}.within{background:#d6a419}.missed{background:#c0392b}.none{background:#7a8a99}
.mark{position:absolute;top:-3px;bottom:-3px;width:2px;background:#222}.far{background:#999}
.value{font-variant-numeric:tabular-nums;text-align:right}
small{color:#666}table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0}td+td{text-align:right}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}.track{background:#2b2f36}.mark{background:#eee}}
";

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Larder: benchmarks</title>\
         <style>{STYLE}</style><h1>Larder: benchmarks</h1>\
         <p>Each bar is the time of Larder as a share of what it is compared with, measured in turn in \
         one process. A dark mark is the goal, a grey one the limit.</p>"
    );
    let mut group = "";
    for ratio in &report.ratios {
        let of = ratio.name.split('.').next().unwrap_or_default();
        if of != group {
            group = of;
            let _infallible = write!(page, "<h2>{}</h2>", escaped(group));
        }
        page.push_str(&row(ratio));
    }
    page.push_str("<h2>Figures</h2><table>");
    for figure in &report.figures {
        let _infallible = write!(
            page,
            "<tr><td>{}</td><td>{} {}</td></tr>",
            escaped(&figure.name),
            number(figure.value),
            escaped(figure.unit)
        );
    }
    page.push_str("</table></html>\n");
    page
}

fn row(ratio: &Ratio) -> String {
    // Bars of one row share a scale on which the limit, if there is one, is at four fifths.
    let full = ratio.goal.map_or(ratio.ratio.max(1.0) * 1.25, |goal| {
        (goal.not_above * 1.25).max(ratio.ratio).max(f64::MIN_POSITIVE)
    });
    let share = |value: f64| (100.0 * value / full).clamp(0.0, 100.0);
    let class = match ratio.verdict() {
        "reached" => "reached",
        "within" => "within",
        "" => "none",
        _ => "missed",
    };
    let marks = ratio.goal.map_or_else(String::new, |goal| {
        format!(
            "<i class=\"mark\" style=\"left:{:.1}%\"></i><i class=\"mark far\" style=\"left:{:.1}%\"></i>",
            share(goal.reach),
            share(goal.not_above)
        )
    });
    format!(
        "<div class=\"row\"><span>{}</span><div class=\"track\" title=\"against {}\">\
         <div class=\"bar {class}\" style=\"width:{:.1}%\"></div>{marks}</div>\
         <span class=\"value\">{} <small>{}</small></span></div>",
        escaped(&ratio.name),
        escaped(&ratio.base),
        share(ratio.ratio),
        number(ratio.ratio),
        ratio.verdict(),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
