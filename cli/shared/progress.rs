//! Progress on stderr, of training and of long evaluations: a bar on a terminal, plain lines when piped, nothing when quiet.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use ctk_core::observer::{Event, Metered, Observer, Progress, Silent};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::{figure, say};
use super::pace::{Cell, time};

/// Seconds between two lines where there is no terminal, and until the first line or bar of an evaluation.
const BETWEEN: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(1);

/// The observer that fits the terminal and `quiet`.
pub fn observer(quiet: bool) -> Box<dyn Observer> {
    fitting(quiet, None)
}

/// The same for a run that is one cell of many.
pub fn of_cell(quiet: bool, cell: Cell) -> Box<dyn Observer> {
    fitting(quiet, Some(cell))
}

fn fitting(quiet: bool, cell: Option<Cell>) -> Box<dyn Observer> {
    let clock = Clock { started: Instant::now(), from: 0, steps: 0 };
    if quiet {
        Box::new(Silent)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bar { bar: None, clock, cell, said: String::new() })
    } else {
        Box::new(Lines { last: None, clock, cell })
    }
}

/// Shows, as long as the result is kept, how many samples an evaluation has computed.
pub fn of_samples(quiet: bool) -> Option<Metered> {
    let terminal = std::io::stderr().is_terminal();
    let mut meter = Samples { began: Instant::now(), last: Instant::now(), bar: None, terminal, before: 0 };
    (!quiet).then(|| Metered::by(move |done, all| meter.told(done, all)))
}

/// The progress of one piece of work after another.
struct Samples {
    began: Instant,
    last: Instant,
    bar: Option<ProgressBar>,
    terminal: bool,
    before: usize,
}

impl Samples {
    fn told(&mut self, done: usize, all: usize) {
        if done <= self.before {
            (self.began, self.last) = (Instant::now(), Instant::now());
        }
        self.before = done;
        let since = self.began.elapsed();
        let left = || time(since.as_secs_f64() / done as f64 * all.saturating_sub(done) as f64);
        if done == all {
            self.bar.take().iter().for_each(ProgressBar::finish_and_clear);
        }
        if done == 0 || done == all || since < SOON {
            return;
        }
        if self.terminal {
            let style = || ProgressStyle::with_template("{bar:12} {pos}/{len} samples  {wide_msg}").expect("a valid template");
            let bar = self.bar.get_or_insert_with(|| ProgressBar::new(all as u64).with_style(style()));
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("left {}", left()));
        } else if self.last.elapsed() >= BETWEEN {
            self.last = Instant::now();
            say(format!("{done} of {all} samples, {} left", left()));
        }
    }
}

/// When and at which step training began.
struct Clock {
    started: Instant,
    from: usize,
    steps: usize,
}

impl Clock {
    fn start(from: usize, steps: usize) -> Clock {
        Clock { started: Instant::now(), from, steps }
    }

    /// Seconds left after `step`; none before the first step is made.
    fn left(&self, step: usize) -> Option<f64> {
        let done = step.checked_sub(self.from).filter(|done| *done > 0)?;
        Some(self.started.elapsed().as_secs_f64() / done as f64 * self.steps.saturating_sub(step) as f64)
    }
}

struct Bar {
    bar: Option<ProgressBar>,
    clock: Clock,
    cell: Option<Cell>,
    /// The text of the last logged step.
    said: String,
}

impl Bar {
    /// For a cell of a study, the line begins with the progress of the whole study; if the line is too long, the cell's own part is cut.
    fn moved(&self, step: usize) {
        let Some(bar) = &self.bar else { return };
        bar.set_position(step as u64);
        match &self.cell {
            Some(cell) => bar.set_message(in_all(&cell.line(self.clock.left(step)), step, self.clock.steps, &self.said)),
            None => bar.set_message(match self.clock.left(step) {
                Some(left) => format!("left {}  {}", time(left), self.said),
                None => self.said.clone(),
            }),
        }
    }
}

/// One line for a cell of a study: `whole` is the study's progress.
fn in_all(whole: &str, step: usize, steps: usize, said: &str) -> String {
    format!("{whole}  step {step}/{steps}  {said}")
}

impl Observer for Bar {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { step, steps } => {
                // What does not fit is cut at the terminal's edge, so that it stays one line at any width.
                let template = if self.cell.is_some() { "{wide_msg}" } else { "{bar:12} {pos}/{len}  {wide_msg}" };
                let style = ProgressStyle::with_template(template).expect("a valid template");
                let bar = ProgressBar::new(*steps as u64).with_style(style);
                bar.set_position(*step as u64);
                bar.enable_steady_tick(Duration::from_millis(500));
                (self.bar, self.clock) = (Some(bar), Clock::start(*step, *steps));
                self.said.clear();
                self.moved(*step);
            }
            Event::Finished => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
            Event::Step(p) => {
                self.said = narrow(p);
                self.moved(p.step);
            }
            Event::Tick { step } => self.moved(*step),
            other => {
                let Some(text) = words(other) else { return };
                match &self.bar {
                    Some(bar) => bar.suspend(|| say(text)),
                    None => say(text),
                }
            }
        }
    }
}

struct Lines {
    last: Option<Instant>,
    clock: Clock,
    cell: Option<Cell>,
}

impl Observer for Lines {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { step, steps } => {
                self.clock = Clock::start(*step, *steps);
                let left = steps.saturating_sub(*step);
                say(format!("training: {left} {} to go", if left == 1 { "step" } else { "steps" }));
            }
            // A line every few seconds and for the last step, so that log files stay short.
            Event::Step(p) if p.step < p.steps && self.last.is_some_and(|t| t.elapsed() < BETWEEN) => {}
            Event::Step(p) => {
                self.last = Some(Instant::now());
                let left = self.clock.left(p.step);
                match &self.cell {
                    Some(cell) => say(in_all(&cell.line(left), p.step, p.steps, &short(p))),
                    None => say(format!("step {}/{}  {}  left {}", p.step, p.steps, short(p), time(left.unwrap_or(0.0)))),
                }
            }
            other => {
                if let Some(text) = words(other) {
                    say(text);
                }
            }
        }
    }
}

fn short(p: &Progress) -> String {
    format!("epoch {:.2}  loss {:.4}  rate {:.4}  {:.0} samples/s{}", p.epoch, p.loss, p.rate, p.samples_per_second, extras(p))
}

/// The same for a bar, which is cut at the terminal's edge: what tells most comes first.
fn narrow(p: &Progress) -> String {
    format!("loss {:.3}{}  {:.0} samples/s  epoch {:.2}  rate {:.4}", p.loss, extras(p), p.samples_per_second, p.epoch, p.rate)
        .replace("similarity", "sim.")
}

fn extras(p: &Progress) -> String {
    p.extras.iter().map(|(name, value)| format!("  {} {}", name.replace('_', " "), figure(name, *value, 3))).collect()
}

fn words(event: &Event) -> Option<String> {
    match event {
        Event::Measured { epoch, figures } => {
            let figures: Vec<_> =
                figures.iter().map(|(name, value)| format!("{} {}", name.replace('_', " "), figure(name, *value, 4))).collect();
            Some(format!("epoch {epoch}: {}", figures.join("  ")))
        }
        Event::About(text) => Some((*text).to_string()),
        Event::Note(text) if text.starts_with("warning: ") => Some((*text).to_string()),
        Event::Note(text) => Some(format!("note: {text}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::pace::Pace;
    use super::*;

    #[test]
    fn the_line_of_a_cell_is_one_and_begins_with_the_whole() {
        let mut pace = Pace::new(vec![Some((0, 0)); 360]);
        pace.took(1, 1200.0);
        let cell = Cell { pace: Arc::new(Mutex::new(pace)), number: 123, began: Instant::now() };
        let p = Progress {
            step: 250,
            steps: 10_000,
            epoch: 12.5,
            loss: 4.25,
            rate: 0.03,
            samples_per_second: 1234.0,
            extras: vec![],
        };
        let line = in_all(&cell.line(Some(600.0)), p.step, p.steps, &short(&p));
        assert_eq!(
            line,
            "cell 123 of 360, 3 d 7 h left in all  step 250/10000  epoch 12.50  loss 4.2500  rate 0.0300  1234 samples/s"
        );
        let p = Progress { extras: vec![("positive_similarity", 0.91), ("negative_similarity", 0.123)], ..p };
        assert!(narrow(&p).starts_with("loss 4.250  positive sim. 0.910  negative sim. 0.123  1234 samples/s"), "{}", narrow(&p));
        // At the edge of a narrow terminal the line is cut.
        let narrow: String = line.chars().take(50).collect();
        assert!(narrow.contains("123 of 360, 3 d 7 h left in all") && !line.contains('\n'));
        let clock = Clock { started: Instant::now() - Duration::from_secs(10), from: 100, steps: 300 };
        assert!(
            clock.left(100).is_none() && (clock.left(200).unwrap() - 10.0).abs() < 1.0,
            "steps of earlier processes do not count"
        );
    }
}
