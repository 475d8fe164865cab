//! A small plot as SVG: accuracy over amounts of labels, a curve a method, with bars of one standard deviation.

use std::fmt::Write;

/// What is drawn.
pub struct Plot {
    /// The run that the study is of.
    pub run: String,
    /// What samples are called: `images`, `texts`.
    pub samples: &'static str,
    /// The amounts of labels, and how many labelled samples each is.
    pub labels: Vec<(String, usize)>,
    /// Accuracy of guessing, a share; none where the number of classes is not known.
    pub chance: Option<f64>,
    /// Label subsets a point: the fewest and the most.
    pub seeds: (usize, usize),
    /// The methods.
    pub curves: Vec<Curve>,
}

/// A method: mean and standard deviation, shares 0 to 1, at each label of the axis where it was measured.
pub struct Curve {
    pub name: String,
    pub points: Vec<Option<(f64, Option<f64>)>>,
}

const WIDTH: f64 = 680.0;
const HEIGHT: f64 = 440.0;
/// Left, right, top and bottom of the plotted area.
const AREA: [f64; 4] = [64.0, 490.0, 64.0, 360.0];
/// Okabe and Ito's colours, which the colour-blind can tell apart.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
/// Strokes, so that curves can be told apart without colour.
const DASHES: [&str; 4] = ["none", "7 3", "2 3", "9 3 2 3"];
/// Distances between lines of the axis, in hundredths: the first that gives at most eight.
const STEPS: [f64; 6] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0];

impl Plot {
    /// The SVG file; amounts stand at equal distances.
    pub fn svg(&self) -> String {
        let [left, right, top, bottom] = AREA;
        let (low, high, step) = self.axis();
        let x = |at: usize| left + (right - left) * (at as f64 + 0.5) / self.labels.len().max(1) as f64;
        let y = |share: f64| bottom - (bottom - top) * ((100.0 * share - low) / (high - low)).clamp(0.0, 1.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let mut put = |line: std::fmt::Arguments| {
            // Writing to a String cannot fail.
            let _ = svg.write_fmt(line);
            svg.push('\n');
        };
        put(format_args!("<text x=\"{left}\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>", escaped(&self.title())));
        put(format_args!("<text x=\"{left}\" y=\"44\">top-1 accuracy on test {}, %</text>", self.samples));
        let mut line = low;
        while line <= high + 1e-9 {
            let at = y(line / 100.0);
            put(format_args!("<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"));
            put(format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{line:.0}</text>", left - 8.0, at + 4.0));
            line += step;
        }
        for (at, (label, count)) in self.labels.iter().enumerate() {
            let middle = format!("x=\"{:.1}\" text-anchor=\"middle\"", x(at));
            put(format_args!("<text {middle} y=\"{:.1}\">{}</text>", bottom + 20.0, escaped(label)));
            put(format_args!("<text {middle} y=\"{:.1}\" fill=\"#555\">{count} {}</text>", bottom + 37.0, self.samples));
        }
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">labels of the training {}</text>",
            (left + right) / 2.0,
            bottom + 58.0,
            self.samples
        ));
        if let Some(chance) = self.chance {
            let at = y(chance);
            put(format_args!(
                "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#555\" stroke-dasharray=\"1 3\"/>"
            ));
            put(format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\">chance {:.1} %</text>",
                right + 8.0,
                at + 4.0,
                100.0 * chance
            ));
        }
        for (number, curve) in self.curves.iter().enumerate() {
            let (colour, dash) = (COLOURS[number % COLOURS.len()], DASHES[number % DASHES.len()]);
            // A little apart, or bars would cover each other.
            let shift = 8.0 * (number as f64 - (self.curves.len() as f64 - 1.0) / 2.0);
            let measured = curve.points.iter().enumerate();
            let points: Vec<(f64, f64, f64)> =
                measured.filter_map(|(at, point)| point.map(|(mean, sd)| (x(at) + shift, mean, sd.unwrap_or(0.0)))).collect();
            let path: Vec<String> = points.iter().map(|(x, mean, _)| format!("{x:.1},{:.1}", y(*mean))).collect();
            put(format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" stroke-dasharray=\"{dash}\"/>",
                path.join(" ")
            ));
            for (cx, mean, sd) in points {
                let (least, most) = (y(mean - sd), y(mean + sd));
                put(format_args!("<line x1=\"{cx:.1}\" y1=\"{least:.1}\" x2=\"{cx:.1}\" y2=\"{most:.1}\" stroke=\"{colour}\"/>"));
                put(format_args!("{}", mark(number, cx, y(mean), colour)));
            }
            let line = top + 16.0 + 24.0 * number as f64;
            put(format_args!("{}", mark(number, right + 18.0, line - 4.0, colour)));
            put(format_args!("<text x=\"{:.1}\" y=\"{line:.1}\">{}</text>", right + 30.0, escaped(&curve.name)));
        }
        put(format_args!("<text x=\"{left}\" y=\"{:.1}\" font-size=\"11\" fill=\"#555\">{}</text>", HEIGHT - 8.0, self.bars()));
        svg.push_str("</svg>\n");
        svg
    }

    fn title(&self) -> String {
        // A long path keeps its end, which tells runs apart.
        let shown: Vec<char> = self.run.chars().collect();
        let run: String = match shown.len() {
            0..=60 => self.run.clone(),
            long => format!("…{}", shown[long - 59..].iter().collect::<String>()),
        };
        format!("What labels are worth to {run}")
    }

    /// What the bars are.
    fn bars(&self) -> String {
        match self.seeds {
            (1, 1) => "one label subset a point: no bars".to_string(),
            (least, most) if least == most => format!("bars: one standard deviation over {most} label subsets"),
            (least, most) => format!("bars: one standard deviation over {least} to {most} label subsets"),
        }
    }

    /// The least and the most of the axis and the distance of its lines, in hundredths: all bars lie in it, and chance.
    fn axis(&self) -> (f64, f64, f64) {
        let points = self.curves.iter().flat_map(|curve| curve.points.iter().flatten());
        let ends = points.flat_map(|(mean, sd)| [mean - sd.unwrap_or(0.0), mean + sd.unwrap_or(0.0)]).chain(self.chance);
        let ends = ends.map(|share| 100.0 * share.clamp(0.0, 1.0));
        let (least, most) = ends.fold((100.0f64, 0.0f64), |(least, most), end| (least.min(end), most.max(end)));
        if least > most {
            return (0.0, 100.0, 20.0);
        }
        let around = |step: f64| ((least / step).floor() * step, (most / step).ceil() * step);
        let step = STEPS.into_iter().find(|&step| (around(step).1 - around(step).0) / step <= 8.0).unwrap_or(20.0);
        let (low, high) = around(step);
        match high > low {
            true => (low, high, step),
            false if low < 100.0 => (low, low + step, step),
            false => (low - step, low, step),
        }
    }
}

/// The mark of a curve: a circle, a square, a triangle or a diamond.
fn mark(number: usize, x: f64, y: f64, colour: &str) -> String {
    let polygon = |points: &[(f64, f64)]| {
        let points: Vec<String> = points.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
        format!("<polygon points=\"{}\" fill=\"{colour}\"/>", points.join(" "))
    };
    match number % 4 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>"),
        1 => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\" fill=\"{colour}\"/>", x - 3.5, y - 3.5),
        2 => polygon(&[(0.0, -5.0), (5.0, 4.0), (-5.0, 4.0)]),
        _ => polygon(&[(0.0, -5.5), (5.5, 0.0), (0.0, 5.5), (-5.5, 0.0)]),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(curves: &[(&str, &[f64])], sd: Option<f64>, chance: Option<f64>) -> Plot {
        let curve = |(name, means): &(&str, &[f64])| Curve {
            name: name.to_string(),
            points: means.iter().map(|&mean| Some((mean, sd))).chain([None]).collect(),
        };
        let labels = [("1%", 5), ("10%", 50), ("100%", 500)].map(|(label, images)| (label.to_string(), images)).to_vec();
        Plot {
            run: "runs/a & b".into(),
            samples: "images",
            labels,
            chance,
            seeds: (2, 3),
            curves: curves.iter().map(curve).collect(),
        }
    }

    #[test]
    fn every_point_is_drawn_where_it_belongs_and_everything_is_named() {
        let svg = plot(&[("a < b", &[0.0, 0.5]), ("c", &[0.9, 1.0])], Some(0.1), Some(0.25)).svg();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(
            (svg.matches("<circle").count(), svg.matches("width=\"7\"").count()),
            (3, 3),
            "two points and one of the legend"
        );
        // A mean of .5 lies half-way up, and no bar leaves the plot.
        assert!(svg.contains("cy=\"212.0\"") && !svg.contains("y2=\"-"), "{svg}");
        for text in ["a &lt; b", "runs/a &amp; b", "5 images", "500 images", "chance 25.0 %", "over 2 to 3 label subsets"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert!(svg.contains("stroke-dasharray=\"7 3\""), "{svg}");
    }

    #[test]
    fn the_axis_is_fitted_to_what_is_drawn() {
        let axis = |means: &[f64], sd, chance| plot(&[("a", means)], sd, chance).axis();
        assert_eq!(axis(&[0.61, 0.65], Some(0.01), None), (60.0, 66.0, 1.0));
        assert_eq!(axis(&[0.61, 0.65], Some(0.01), Some(0.1)), (10.0, 70.0, 10.0));
        assert_eq!(axis(&[0.0, 1.0], None, None), (0.0, 100.0, 20.0));
        assert_eq!(axis(&[0.5], None, None), (50.0, 51.0, 1.0));
        assert_eq!(axis(&[1.0], None, None), (99.0, 100.0, 1.0));
        assert_eq!(axis(&[0.99], Some(0.3), None).1, 100.0);
        assert_eq!(axis(&[], None, None), (0.0, 100.0, 20.0));
        for at in 0..100 {
            let (low, high, step) = axis(&[f64::from(at) / 100.0, f64::from((at * 37) % 101) / 100.0], Some(0.02), None);
            assert!(
                low < high && ((high - low) / step).round() <= 8.0 && (0.0..=100.0).contains(&low),
                "{at}: {low} {high} {step}"
            );
        }
    }
}
