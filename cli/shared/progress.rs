//! Progress on stderr: a bar on a terminal, plain lines when piped, nothing when quiet.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use ctk_core::observer::{Event, Observer, Progress, Silent};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::say;

/// Whoever fits the terminal and `quiet`.
pub fn observer(quiet: bool) -> Box<dyn Observer> {
    if quiet {
        Box::new(Silent)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bar(None))
    } else {
        Box::new(Lines { last: None, started: Instant::now(), from: 0 })
    }
}

struct Bar(Option<ProgressBar>);

impl Observer for Bar {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { step, steps } => {
                // What does not fit is cut at the terminal's edge: one line at any width.
                let style = ProgressStyle::with_template("{bar:12} {pos}/{len} left {eta} {wide_msg}").expect("a valid template");
                let bar = ProgressBar::new(*steps as u64).with_style(style);
                bar.set_position(*step as u64);
                // Without this the steps of earlier processes count as instant, and the time left is nonsense.
                bar.reset_eta();
                bar.enable_steady_tick(Duration::from_millis(500));
                self.0 = Some(bar);
            }
            Event::Finished => {
                if let Some(bar) = self.0.take() {
                    bar.finish_and_clear();
                }
            }
            Event::Step(p) => {
                if let Some(bar) = &self.0 {
                    bar.set_position(p.step as u64);
                    bar.set_message(short(p));
                }
            }
            Event::Tick { step } => {
                if let Some(bar) = &self.0 {
                    bar.set_position(*step as u64);
                }
            }
            other => {
                let Some(text) = words(other) else { return };
                match &self.0 {
                    Some(bar) => bar.suspend(|| say(text)),
                    None => say(text),
                }
            }
        }
    }
}

struct Lines {
    last: Option<Instant>,
    started: Instant,
    from: usize,
}

impl Observer for Lines {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { step, steps } => {
                (self.started, self.from) = (Instant::now(), *step);
                say(format!("training: {} steps to go", steps - step));
            }
            // Logs stay readable: a line every few seconds, and the last one.
            Event::Step(p) if p.step < p.steps && self.last.is_some_and(|t| t.elapsed() < Duration::from_secs(5)) => {}
            Event::Step(p) => {
                self.last = Some(Instant::now());
                let done = (p.step - self.from).max(1) as f64;
                let left = self.started.elapsed().as_secs_f64() / done * (p.steps - p.step) as f64;
                say(format!("step {}/{}  {}  left {left:.0} s", p.step, p.steps, short(p)));
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
    let mut text = format!("epoch {:.2}  loss {:.4}  rate {:.4}  {:.0}/s", p.epoch, p.loss, p.rate, p.samples_per_second);
    for (name, value) in &p.extras {
        text.push_str(&format!("  {} {value:.3}", name.replace('_', " ")));
    }
    text
}

fn words(event: &Event) -> Option<String> {
    match event {
        Event::Measured { epoch, figures } => {
            let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{} {value:.4}", name.replace('_', " "))).collect();
            Some(format!("epoch {epoch}: {}", figures.join("  ")))
        }
        Event::About(text) => Some((*text).to_string()),
        Event::Note(text) => Some(format!("note: {text}")),
        _ => None,
    }
}
