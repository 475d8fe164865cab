//! A confusion matrix as SVG: a row for each true class, each cell shaded by its share of the row.

use std::fmt::Write;

use ctk_core::eval::Judgement;

use crate::shared::output;

/// Classes up to which cells are large enough for a number.
const NUMBERED: usize = 30;

/// Draws the matrix; columns are in the order of the rows.
pub fn confusion(judged: &Judgement) -> String {
    let rows: Vec<usize> =
        (0..judged.classes.len()).filter(|&class| class < judged.known || judged.classes[class].count > 0).collect();
    let cell = if judged.known <= NUMBERED { 32.0 } else { (960.0 / judged.known as f64).max(2.0) };
    let names: Vec<String> = judged.classes.iter().map(|class| escaped(&class.name)).collect();
    let longest = rows.iter().map(|&class| judged.classes[class].name.chars().count()).max().unwrap_or(0).min(40);
    let (left, top) = (16.0 + 7.5 * longest as f64, 40.0 + 7.5 * longest as f64);
    let (width, height) = (left + cell * judged.known as f64 + 16.0, top + cell * rows.len() as f64 + 16.0);
    let font = 13.0f64.min(cell);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"{font}\">\n<rect width=\"{width:.0}\" height=\"{height:.0}\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"20\" font-size=\"13\">rows: label, columns: predicted</text>\n"
    );
    let mut put = |line: std::fmt::Arguments| {
        // Writing to a String cannot fail.
        let _ = svg.write_fmt(line);
        svg.push('\n');
    };
    for (class, name) in names[..judged.known].iter().enumerate() {
        let (x, y) = (left + cell * (class as f64 + 0.5) + font / 3.0, top - 6.0);
        put(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" transform=\"rotate(-90 {x:.1} {y:.1})\">{name}</text>"));
    }
    for (at, &label) in rows.iter().enumerate() {
        let y = top + cell * at as f64;
        let (name, middle) = (&names[label], y + cell / 2.0 + font / 3.0);
        put(format_args!("<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{name}</text>", left - 6.0));
        for class in 0..judged.known {
            let count = judged.taken(label, class);
            let share = count as f64 / judged.classes[label].count.max(1) as f64;
            let x = left + cell * class as f64;
            // From white to blue (Okabe and Ito's).
            let shade = |low: f64| (255.0 - (255.0 - low) * share).round();
            let fill = format!("rgb({},{},{})", shade(0.0), shade(114.0), shade(178.0));
            put(format_args!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" fill=\"{fill}\" stroke=\"#ddd\"/>"
            ));
            if judged.known <= NUMBERED && count > 0 {
                let ink = if share > 0.5 { "white" } else { "black" };
                let x = x + cell / 2.0;
                put(format_args!("<text x=\"{x:.1}\" y=\"{middle:.1}\" text-anchor=\"middle\" fill=\"{ink}\">{count}</text>"));
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    output::shown(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use ctk_core::eval::Predictions;

    use super::*;

    #[test]
    fn every_class_has_a_row_and_every_known_one_a_column() {
        let names = |of: &[&str]| of.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let of = names(&["a<b", "owl"]);
        let logits = vec![1.0, 0.0, 0.0, 1.0];
        let found = Predictions::new(&names(&["a<b", "c\u{1}"]), names(&["x", "y"]), &[Some(0), Some(1)], &of, logits).unwrap();
        let svg = confusion(&Judgement::new(&found, 1.0).unwrap());
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<rect").count(), 1 + 3 * 2, "the ground, and three rows of two");
        assert_eq!((svg.matches("a&lt;b").count(), svg.matches("owl").count()), (2, 1));
        assert!(svg.contains("c\\u{1}") && !svg.contains('\u{1}'), "{svg}");
    }
}
