//! `hpsearch watch`: a live view of a study in the terminal.

mod screen;
mod view;

use super::args::{self, Global};
use super::exit::{CliError, Exit};
use crate::clock;
use crate::run::Termination;
use crate::store::{Backend, Reader, StoreError};
use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Widget;
use screen::{Look, Shown};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};
use view::View;

/// Watch a study in the terminal: trials, rungs, curves, workers, time left; it may be finished
///
/// Only reads: any number of watchers may look at a study while it runs. Where the output is no terminal, or with --once,
/// the view is printed once.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A study file or the name of a study; may be left out where there is only one
    pub study: Option<String>,
    /// Print the view once and end
    #[arg(long)]
    pub once: bool,
}

/// How often keys are looked for.
const PULSE: Duration = Duration::from_millis(200);
/// How often the study is read at most.
const PAUSE: Duration = Duration::from_millis(500);
/// Reading takes at most one part in so many of a core.
const SHARE: u32 = 20;
/// The size of a view that is printed to something that has none.
const SIZE: (u16, u16) = (80, 24);

const KEYS: &str = "q quit  ↑↓ PgUp PgDn Home End trial  Tab curve or best";

#[derive(Debug, thiserror::Error)]
#[error("the view is for people\nhint: `hpsearch status --json` prints the same for programs")]
struct NotForPrograms;

/// Shows the study until the user quits, or once.
///
/// # Errors
/// If the study cannot be found or read, or the terminal fails.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    if global.json {
        return Err(CliError::new("watch a study", NotForPrograms).exit(Exit::Usage));
    }
    let name = global.find_study(args.study.as_deref())?;
    let mut source = Source::open(global.backend()?, &name).map_err(|e| CliError::store(reading(&name), e))?;
    let terminal = std::io::stdout().is_terminal();
    let mut look = Look::new(args::colors(terminal));
    if args.once || !terminal {
        let size = if terminal { terminal::size().unwrap_or(SIZE) } else { (columns(), SIZE.1) };
        let text = printed(&source.view, &mut look, clock::unix_ms(), size);
        write!(std::io::stdout().lock(), "{text}")?;
        return Ok(Exit::Done);
    }
    let termination = Termination::new()?;
    let mut terminal = ratatui::try_init()?;
    let outcome = live(&mut terminal, &mut source, &mut look, &termination);
    ratatui::try_restore()?;
    match outcome? {
        Ok(()) => Ok(Exit::Done),
        Err(e) => Err(CliError::store(reading(&name), e)),
    }
}

fn reading(name: &str) -> String {
    format!("read study `{name}`")
}

/// The width that the environment asks for.
fn columns() -> u16 {
    std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|&n| n > 0).unwrap_or(SIZE.0)
}

/// The view as text, without empty lines at its end.
fn printed(view: &View, look: &mut Look, now_ms: u64, (width, height): (u16, u16)) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    screen::draw(view, look, now_ms, area, &mut buffer);
    let lines = buffer.content.chunks(usize::from(width.max(1))).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    });
    let mut text = lines.collect::<Vec<_>>().join("\n");
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// A study that is read again when it has changed.
struct Source {
    backend: Box<dyn Backend>,
    name: String,
    reader: Box<dyn Reader>,
    version: u64,
    running: bool,
    view: View,
    /// When it was last read, and how long that took.
    read: (Instant, Duration),
}

impl Source {
    fn open(backend: Box<dyn Backend>, name: &str) -> Result<Self, StoreError> {
        let began = Instant::now();
        let reader = backend.read(name)?;
        let version = reader.version()?;
        let view = view(&*backend, &*reader, name)?;
        let (running, read) = (view.holder.is_some(), (Instant::now(), began.elapsed()));
        Ok(Self { backend, name: name.to_owned(), reader, version, running, view, read })
    }

    /// Reads the study again if it has changed and reading it is not too dear for now. Whether it was read.
    fn refresh(&mut self) -> Result<bool, StoreError> {
        let (last, took) = self.read;
        if last.elapsed() < PAUSE.max(took * SHARE) {
            return Ok(false);
        }
        let (version, running) = (self.reader.version()?, self.backend.holder(&self.name)?.is_some());
        if (version, running) == (self.version, self.running) {
            return Ok(false);
        }
        let began = Instant::now();
        self.view = view(&*self.backend, &*self.reader, &self.name)?;
        (self.version, self.running, self.read) = (version, running, (Instant::now(), began.elapsed()));
        Ok(true)
    }
}

fn view(backend: &dyn Backend, reader: &dyn Reader, name: &str) -> Result<View, StoreError> {
    Ok(View::new(&reader.spec()?, reader.outline()?, &reader.runs()?, backend.holder(name)?))
}

/// Shows the study until the user quits or a signal asks for it. The outer error is the terminal's.
fn live(
    terminal: &mut DefaultTerminal,
    source: &mut Source,
    look: &mut Look,
    termination: &Termination,
) -> std::io::Result<Result<(), StoreError>> {
    look.select(&source.view, 0);
    let mut drawn: Option<Instant> = None;
    loop {
        // The times on screen go on by themselves.
        if drawn.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            let now = clock::unix_ms();
            terminal.draw(|frame| {
                let [main, keys] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
                let buffer = frame.buffer_mut();
                screen::draw(&source.view, look, now, main, buffer);
                Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM)).render(keys, buffer);
            })?;
            drawn = Some(Instant::now());
        }
        if termination.requested() {
            return Ok(Ok(()));
        }
        if event::poll(PULSE)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if !press(key, &source.view, look) {
                        return Ok(Ok(()));
                    }
                    drawn = None;
                }
                Event::Resize(..) => drawn = None,
                _ => {}
            }
        }
        match source.refresh() {
            Ok(false) => {}
            Ok(true) => {
                if look.position(&source.view).is_none() {
                    look.select(&source.view, 0);
                }
                drawn = None;
            }
            // A server that is restarted: what was seen last stays, and it is asked again.
            Err(StoreError::Unreachable { .. }) => source.read.0 = Instant::now(),
            Err(e) => return Ok(Err(e)),
        }
    }
}

/// Does what a key asks for; `false`: it asks to quit.
fn press(key: KeyEvent, view: &View, look: &mut Look) -> bool {
    let at = look.position(view).unwrap_or(0);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Down | KeyCode::Char('j') => look.select(view, at + 1),
        KeyCode::Up | KeyCode::Char('k') => look.select(view, at.saturating_sub(1)),
        KeyCode::PageDown => look.select(view, at + look.lines),
        KeyCode::PageUp => look.select(view, at.saturating_sub(look.lines)),
        KeyCode::Home | KeyCode::Char('g') => look.select(view, 0),
        KeyCode::End | KeyCode::Char('G') => look.select(view, usize::MAX),
        KeyCode::Tab => {
            look.chart = match look.chart {
                Shown::Best => Shown::Curve,
                Shown::Curve => Shown::Best,
            };
        }
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::TrialState;
    use crate::fsx::Holder;
    use crate::history::{AttemptRow, EpochRow, OrderRow, Row, Tables, TrialRow};
    use crate::ids::{Epoch, OrderId, TrialNumber};
    use crate::spec::StudySpec;
    use crate::store::{RunEnd, RunRow, conformance};
    use std::collections::BTreeMap;

    const BEGAN_MS: u64 = 1_700_000_000_000;

    fn spec() -> StudySpec {
        let spec = conformance::study("pneumonia");
        assert_eq!((spec.budget.n_trials, spec.runner.epochs()), (Some(4), 3));
        spec
    }

    fn tables(rows: impl IntoIterator<Item = Row>) -> Tables {
        let mut tables = Tables::default();
        rows.into_iter().for_each(|row| tables.put(row));
        tables
    }

    /// A trial with an epoch of so many seconds for each value, and its only order: open unless all three are done.
    fn trial(number: u32, values: &[f64], seconds: f64) -> Vec<Row> {
        let trial = TrialNumber(number);
        let (done, last) = (values.len() == 3, values.last().copied());
        let epoch = |(i, value): (usize, &f64)| {
            Row::Epoch(EpochRow {
                trial,
                epoch: Epoch(i as u32 + 1),
                value: Some(*value),
                train_loss: None,
                seconds,
                data_wait_seconds: 0.0,
                images: 1,
                order: OrderId(number),
                attempt: 1,
                reported_ms: BEGAN_MS + 1000 * (1 + i as u64),
                metrics: BTreeMap::new(),
            })
        };
        let mut rows = vec![
            Row::Trial(TrialRow {
                trial,
                state: if done { TrialState::Complete } else { TrialState::Running },
                value: last,
                epochs: values.len() as u32,
                result: last.filter(|_| done),
                result_epochs: if done { 3 } else { 0 },
                bracket: 0,
                rung: None,
                seconds: seconds * values.len() as f64,
                issued_ms: Some(BEGAN_MS),
                finished_ms: None,
            }),
            Row::Order(OrderRow {
                order: OrderId(number),
                trial,
                from: Epoch(0),
                to: Epoch(3),
                bracket: 0,
                rung: None,
                outcome: done.then_some(crate::history::OutcomeKind::Reached),
                at: None,
                value: None,
                finished_ms: None,
            }),
            Row::Attempt(AttemptRow {
                order: OrderId(number),
                attempt: 1,
                worker: number,
                started_ms: BEGAN_MS,
                ended_ms: None,
                ended: done.then_some(crate::history::AttemptEnd::Done),
            }),
        ];
        rows.extend(values.iter().enumerate().map(epoch));
        rows
    }

    fn run(ended: Option<RunEnd>) -> RunRow {
        RunRow {
            started_ms: BEGAN_MS,
            seconds: 5.0,
            ended,
            pid: 7,
            host: "here".to_owned(),
            workers: 2,
            device: "cpu".to_owned(),
        }
    }

    fn holder() -> Option<Holder> {
        Some(Holder { pid: 7, host: "here".to_owned(), since_ms: BEGAN_MS })
    }

    fn two_trials() -> Tables {
        tables([trial(0, &[0.5, 0.6, 0.7], 2.0), trial(1, &[0.4], 4.0)].concat())
    }

    #[test]
    fn the_time_left_is_that_of_open_orders_and_of_trials_to_come_at_the_pace_of_this_run() {
        let view = View::new(&spec(), two_trials(), &[run(None)], holder());
        // Done: 3 epochs of 2 s and one of 4 s in 8 s, so 1.25 workers at once. Left: two epochs of 4 s, and two trials
        // of three epochs at the mean of 2.5 s.
        let (left, _) = view.left(BEGAN_MS + 8000).unwrap();
        assert!((left - (8.0 + 15.0) / 1.25).abs() < 1e-9, "{left}");
        assert_eq!(view.elapsed(BEGAN_MS + 8000), 8.0);
        let over = View::new(&spec(), two_trials(), &[run(Some(RunEnd::Interrupted))], None);
        assert_eq!(over.left(BEGAN_MS + 8000), None);
        let mut short = spec();
        short.budget.wall_seconds = Some(20.0);
        let view = View::new(&short, two_trials(), &[run(None)], holder());
        assert_eq!(view.left(BEGAN_MS + 8000), Some((12.0, crate::engine::Certainty::AtMost)));
        assert_eq!(over.elapsed(BEGAN_MS + 8000), 5.0);
    }

    #[test]
    fn a_run_fits_80_columns() {
        let view = View::new(&spec(), two_trials(), &[run(None)], holder());
        let text = printed(&view, &mut Look::new(false), BEGAN_MS + 8000, SIZE);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for part in [
            "pneumonia  running: 2 workers on cpu, process 7 on here",
            "2 of 4 trials: 1 complete, 1 running",
            "4/12 epochs in 8.0 s, about 18.4 s left ",
            "worker 1  trial 1  epoch 1/3  score 0.4000  for 8.0 s",
            "    1      0    0.7000      3 complete",
            "    2      1    0.4000      1 running",
            "best so far",
        ] {
            assert!(text.contains(part), "`{part}` in\n{text}");
        }
    }

    #[test]
    fn every_size_and_state_is_drawn() {
        let empty = View::new(&spec(), Tables::default(), &[], None);
        let all_kinds = View::new(&spec(), tables(conformance::rows()), &[run(Some(RunEnd::Done))], None);
        let running = View::new(&spec(), two_trials(), &[run(None)], holder());
        for view in [&empty, &all_kinds, &running] {
            for width in (1..140).step_by(7) {
                for height in 1..40 {
                    for chart in [Shown::Best, Shown::Curve] {
                        let mut look = Look { chart, ..Look::new(height % 2 == 0) };
                        look.select(view, 1);
                        let text = printed(view, &mut look, BEGAN_MS, (width, height));
                        assert!(text.lines().count() <= usize::from(height), "{width} x {height}\n{text}");
                    }
                }
            }
        }
        let text = printed(&all_kinds, &mut Look::new(false), BEGAN_MS, SIZE);
        assert!(text.contains("not running; the last run ended: done"), "{text}");
    }

    #[test]
    fn keys_move_the_cursor_and_the_list_follows() {
        let many = tables((0..200).flat_map(|n| trial(n, &[0.5, 0.6, f64::from(n) / 200.0], 1.0)));
        let view = View::new(&spec(), many, &[run(Some(RunEnd::Done))], None);
        let mut look = Look::new(false);
        look.select(&view, 0);
        let mut go = |code: KeyCode| {
            assert!(press(KeyEvent::new(code, KeyModifiers::NONE), &view, &mut look));
            let text = printed(&view, &mut look, BEGAN_MS, SIZE);
            let selected = look.selected.unwrap();
            let in_sight = text.lines().any(|line| line.contains(&format!(" {:>6} ", selected.0)));
            (selected.0, look.lines as u32, in_sight)
        };
        // Ranked by value: trial 199 is first.
        let (at, lines, _) = go(KeyCode::Up);
        assert_eq!(at, 199);
        assert_eq!(go(KeyCode::Down), (198, lines, true));
        assert_eq!(go(KeyCode::PageDown), (198 - lines, lines, true));
        assert_eq!(go(KeyCode::End), (0, lines, true));
        assert_eq!(go(KeyCode::Down), (0, lines, true));
        assert_eq!(go(KeyCode::PageUp), (lines, lines, true));
        assert_eq!(go(KeyCode::Home), (199, lines, true));
        for quit in [
            KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE),
            KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE),
            KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert!(!press(quit, &view, &mut look));
        }
    }
}
