//! A small plot as SVG: accuracy over amounts of labels, a curve a method, with bars of one standard deviation.

use std::fmt::Write;

/// A method: mean and standard deviation, shares 0 to 1, at each label of the axis where it was measured.
pub struct Curve {
    pub name: String,
    pub points: Vec<Option<(f64, Option<f64>)>>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
/// Left, right, top and bottom of the plotted area.
const AREA: [f64; 4] = [60.0, 460.0, 24.0, 340.0];
/// Okabe and Ito's colours, which the colour-blind can tell apart.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// The plot; amounts stand at equal distances.
pub fn label_efficiency(labels: &[String], curves: &[Curve]) -> String {
    let [left, right, top, bottom] = AREA;
    let x = |at: usize| left + (right - left) * (at as f64 + 0.5) / labels.len().max(1) as f64;
    let y = |share: f64| bottom - (bottom - top) * share.clamp(0.0, 1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let mut put = |line: std::fmt::Arguments| {
        // Writing to a String cannot fail.
        let _ = svg.write_fmt(line);
        svg.push('\n');
    };
    for tenth in (0..=10).step_by(2) {
        let at = y(f64::from(tenth) / 10.0);
        put(format_args!("<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"));
        put(format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} %</text>", left - 8.0, at + 4.0, tenth * 10));
    }
    for (at, label) in labels.iter().enumerate() {
        let label = escaped(label);
        put(format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>", x(at), bottom + 20.0));
    }
    put(format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">labels</text>", (left + right) / 2.0, bottom + 44.0));
    put(format_args!("<text x=\"{left}\" y=\"14\">top-1 accuracy on test images</text>"));
    for (number, curve) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        // A little apart, or bars would cover each other.
        let shift = 6.0 * (number as f64 - (curves.len() as f64 - 1.0) / 2.0);
        let points: Vec<(f64, f64, f64)> = curve
            .points
            .iter()
            .enumerate()
            .filter_map(|(at, point)| point.map(|(mean, sd)| (x(at) + shift, mean, sd.unwrap_or(0.0))))
            .collect();
        let path: Vec<String> = points.iter().map(|(x, mean, _)| format!("{x:.1},{:.1}", y(*mean))).collect();
        put(format_args!("<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>", path.join(" ")));
        for (cx, mean, sd) in points {
            let (low, high) = (y(mean - sd), y(mean + sd));
            put(format_args!("<line x1=\"{cx:.1}\" y1=\"{low:.1}\" x2=\"{cx:.1}\" y2=\"{high:.1}\" stroke=\"{colour}\"/>"));
            put(format_args!("<circle cx=\"{cx:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>", y(mean)));
        }
        let line = top + 16.0 + 22.0 * number as f64;
        put(format_args!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>", right + 18.0, line - 4.0));
        put(format_args!("<text x=\"{:.1}\" y=\"{line:.1}\">{}</text>", right + 30.0, escaped(&curve.name)));
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_where_it_belongs() {
        let curve = |name: &str, means: &[f64]| Curve {
            name: name.to_string(),
            points: means.iter().map(|&mean| Some((mean, Some(0.1)))).chain([None]).collect(),
        };
        let labels = ["1%", "10%", "100%"].map(String::from);
        let svg = label_efficiency(&labels, &[curve("a < b", &[0.0, 0.5]), curve("c", &[0.9, 1.0])]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<circle").count(), 4 + 2, "four points, two in the legend");
        assert!(svg.contains("a &lt; b"));
        // A mean of .5 lies half-way up, and no bar leaves the plot.
        assert!(svg.contains("cy=\"182.0\""), "{svg}");
        assert!(!svg.contains("y2=\"-"), "{svg}");
    }
}
