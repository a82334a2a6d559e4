//! Whole simulations by seed.

use std::time::Duration;

use windrose_proto::time::{Clock as _, UnixNanos};
use windrose_store::disk::{Fault, Operation, PowerCut};

use crate::load::{Load, Message};
use crate::random::Random;
use crate::world::{Figures, World};

/// Seeds in a normal test run.
const SEEDS: u64 = 2;
/// Events of one simulation.
const EVENTS: usize = 90;

/// A simulation under way.
struct Run {
    world: World,
    random: Random,
    load: Load,
    /// Not sent yet, or refused and to be sent again.
    outbox: Vec<Message>,
    /// One line per event, to compare runs of the same seed.
    history: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            world: World::new(seed),
            random: Random::new(seed),
            load: Load::default(),
            outbox: Vec::new(),
            history: Vec::new(),
        }
    }

    fn event(&mut self) {
        match self.random.below(100) {
            0..50 => self.send(),
            50..75 => self.tick(),
            75..83 => self.fault(),
            83..87 => self.fill_disk(),
            87..90 => self.step_clock(),
            90..96 => {
                let changes = self.random.below(120);
                self.world.disk.halt_after(changes);
                self.note(format!("halt after {changes}"));
            }
            96..97 => {
                self.world.restart();
                self.note("restart".to_owned());
            }
            97..98 => self.crash(),
            _ => {
                let present = self.world.check_spans();
                self.note(format!("{present} spans"));
            }
        }
        if self.world.disk.is_halted() {
            self.crash();
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "texts are made for it")]
    fn note(&mut self, what: String) {
        let now = self.world.clock.now().0;
        self.history.push(format!("{now} {what}"));
    }

    fn send(&mut self) {
        let now = self.world.clock.now();
        for _ in 0..self.random.below(12) {
            self.outbox.extend(self.load.trace(&mut self.random, now));
        }
        let mut due = Vec::new();
        let mut place = 0;
        while place < self.outbox.len() {
            if self.outbox[place].due <= now && self.random.chance(80) {
                due.push(self.outbox.swap_remove(place));
            } else {
                place += 1;
            }
        }
        for group in due.chunks(1 + self.random.below(6) as usize) {
            let answers = self.world.send(group);
            let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
            self.note(format!("sent {}, accepted {accepted}", group.len()));
            if answers.len() == group.len() {
                // Most senders repeat what was refused.
                let refused = group.iter().zip(&answers).filter(|(_, answer)| answer.is_err());
                self.outbox.extend(refused.map(|(message, _)| message.clone()));
            }
        }
    }

    fn tick(&mut self) {
        let passed = Duration::from_millis(self.random.pick(&[100, 400, 1_000, 3_100]));
        self.world.tick(passed);
        self.note(format!("tick {passed:?}"));
    }

    fn fault(&mut self) {
        let operation = self.random.pick(&[Operation::Create, Operation::Write, Operation::Sync, Operation::Name]);
        let fault = self.random.pick(&[Fault::Io, Fault::NoSpace]);
        let times = 1 + self.random.below(4) as u32;
        self.world.disk.fail_next(operation, fault, times);
        self.note(format!("{times} times {fault:?} at {operation:?}"));
    }

    fn fill_disk(&mut self) {
        if self.random.chance(50) {
            self.world.disk.set_capacity_bytes(None);
            self.note("room".to_owned());
        } else {
            let bytes = self.random.below(60_000);
            self.world.leave_room(bytes);
            self.note(format!("room for {bytes}"));
        }
    }

    /// Back by up to ten minutes, or on by as much.
    fn step_clock(&mut self) {
        let now = self.world.clock.now();
        let by = self.random.below(600) * 1_000_000_000;
        let stepped = if self.random.chance(70) { now.0 - by } else { now.0 + by };
        self.world.clock.set(UnixNanos(stepped));
        self.note("clock set".to_owned());
    }

    fn crash(&mut self) {
        match self.random.below(3) {
            0 => self.world.kill(),
            1 => self.world.cut_power(PowerCut::DropUnsynced),
            _ => self.world.cut_power(PowerCut::Tear),
        }
        let present = self.world.check_spans();
        self.note(format!("crashed, {present} spans"));
    }

    /// Delivers the rest and compares everything, then once more after a last crash.
    fn finish(&mut self) {
        self.world.quiesce();
        self.world.clock.advance(Duration::from_secs(60));
        let rest = std::mem::take(&mut self.outbox);
        for group in rest.chunks(4) {
            self.world.send(group);
            self.world.tick(Duration::from_millis(900));
        }
        self.world.check_answers();
        self.world.kill();
        self.world.check_answers();
        self.world.cut_power(PowerCut::Tear);
        self.world.check_answers();
    }
}

fn simulate(seed: u64) -> (Figures, Vec<String>) {
    let mut run = Run::new(seed);
    for _ in 0..EVENTS {
        run.event();
    }
    run.finish();
    (run.world.figures, run.history)
}

#[expect(clippy::disallowed_methods, reason = "a test is told its seeds by the environment")]
fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")),
        Err(_) => otherwise,
    }
}

#[test]
fn whatever_happens_what_was_acknowledged_is_there_once() {
    let first = number("SIMULATION_FIRST_SEED", 1);
    let seeds = number("SIMULATION_SEEDS", SEEDS);
    let mut sum = Figures::default();
    for seed in first..first + seeds {
        let failed = std::panic::catch_unwind(|| simulate(seed));
        let (figures, _) =
            failed.unwrap_or_else(|_| panic!("SIMULATION_SEEDS=1 SIMULATION_FIRST_SEED={seed} fails again"));
        sum.add(figures);
    }
    println!("{seeds} seeds from {first}: {sum:?}");
    assert!(sum.acknowledged > 100 * seeds as usize, "{sum:?}");
    assert!(sum.refused > 0 && sum.power_cuts > 0 && sum.kills > 0, "the disasters happened: {sum:?}");
}

#[test]
fn the_same_seed_is_the_same_history() {
    let seed = 3;
    {
        let ((figures, history), (again, history_again)) = (simulate(seed), simulate(seed));
        let first_difference = history.iter().zip(&history_again).find(|(one, other)| one != other);
        assert_eq!(first_difference, None, "seed {seed}");
        assert_eq!(figures, again, "seed {seed}");
    }
}
