//! The filters of a session, one after the other.
//!
//! Every filter and every chain of a configuration becomes a [`Chain`] of steps once. Each step has
//! a token, by which programs name it in their answers.

use std::sync::Arc;

use super::Direction;
use super::wire::Subsystems;
use crate::config::{ActionKind, BuiltInFilter, Config, FilterId, FilterKind, ProcessId};

/// What sessions go through.
#[derive(Debug, Default)]
pub struct Chain {
    /// In this order.
    pub steps: Vec<Step>,
    /// The programs among them, each once.
    pub processes: Vec<ProcessId>,
}

/// One filter in a chain.
#[derive(Debug)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// How programs name this step; unlike all others of a configuration.
    pub token: u64,
    /// Who decides.
    pub decider: Decider,
}

/// Who decides in a step.
#[derive(Debug)]
pub enum Decider {
    /// The server itself.
    BuiltIn(BuiltInFilter),
    /// A program.
    Process(ProcessId),
}

/// The chains of a configuration.
#[derive(Debug)]
pub struct Chains {
    /// By [`FilterId`].
    chains: Vec<Arc<Chain>>,
}

impl Chains {
    /// Makes the chains of `config`; tokens are drawn from `seed`.
    #[must_use]
    pub fn new(config: &Config, seed: u64) -> Self {
        let mut tokens = Tokens(seed);
        let chain =
            |filter: &crate::config::Filter| Arc::new(chain_of(config, filter, &mut tokens));
        Self { chains: config.filters.iter().map(chain).collect() }
    }

    /// The chain that this filter is; `None` for one of another configuration.
    #[must_use]
    pub fn get(&self, filter: FilterId) -> Option<&Arc<Chain>> {
        self.chains.get(filter.0 as usize)
    }

    /// The sessions that each program of `config` sees, by [`ProcessId`].
    #[must_use]
    pub fn subsystems(&self, config: &Config) -> Vec<Subsystems> {
        let listeners = config.listeners.iter().filter_map(|listener| listener.filter);
        let relays = config.actions.iter().filter_map(|action| match &action.kind {
            ActionKind::Relay(relay) => relay.filter,
            ActionKind::Local(_) => None,
        });
        let uses = listeners.map(|filter| (filter, Direction::In));
        let uses = uses.chain(relays.map(|filter| (filter, Direction::Out)));
        let mut all = vec![Subsystems::default(); config.processes.len()];
        for (filter, direction) in uses {
            let processes = self.get(filter).map_or(&[][..], |chain| &chain.processes);
            for process in processes {
                let Some(seen) = all.get_mut(process.0 as usize) else { continue };
                match direction {
                    Direction::In => seen.incoming = true,
                    Direction::Out => seen.outgoing = true,
                }
            }
        }
        all
    }
}

impl Chain {
    /// The step that `process` names with `token`.
    #[must_use]
    pub fn step(&self, process: ProcessId, token: u64) -> Option<usize> {
        self.steps.iter().position(|step| {
            step.token == token && matches!(step.decider, Decider::Process(own) if own == process)
        })
    }

    /// The name of the first filter that `process` decides for.
    #[must_use]
    pub fn name_of(&self, process: ProcessId) -> Option<&str> {
        let is = |step: &&Step| matches!(step.decider, Decider::Process(own) if own == process);
        self.steps.iter().find(is).map(|step| step.name.as_str())
    }
}

fn chain_of(config: &Config, filter: &crate::config::Filter, tokens: &mut Tokens) -> Chain {
    let members = match &filter.kind {
        FilterKind::Chain(members) => members.iter().filter_map(|id| config.filter(*id)).collect(),
        _ => vec![filter],
    };
    let mut chain = Chain::default();
    for member in members {
        let decider = match &member.kind {
            FilterKind::BuiltIn(built_in) => Decider::BuiltIn(built_in.clone()),
            FilterKind::OwnProcess(process) | FilterKind::Process(process) => {
                if !chain.processes.contains(process) {
                    chain.processes.push(*process);
                }
                Decider::Process(*process)
            }
            // A chain has no chains: the configuration was refused.
            FilterKind::Chain(_) => continue,
        };
        chain.steps.push(Step { name: member.name.clone(), token: tokens.next(), decider });
    }
    chain
}

/// Numbers that differ from one another: a counter, mixed so that they look like nothing.
struct Tokens(u64);

impl Tokens {
    fn next(&mut self) -> u64 {
        // SplitMix64, whose mixing maps no two counts to one number.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;

    #[test]
    fn chains_have_their_filters_in_order_with_tokens_of_their_own() {
        let config = good(
            "proc p \"/p\"\nfilter a proc p\nfilter b phase connect match fcrdns junk\n\
             filter c proc p\nfilter d proc-exec \"/d\"\nfilter e chain { a b c d }\n\
             listen on lo filter e\naction r relay filter { b, d }\nmatch for any action r\n",
        );
        let chains = Chains::new(&config, 7);
        let chain = chains.get(config.filter_named("e").unwrap()).unwrap();
        let names: Vec<_> = chain.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert_eq!(chain.processes, [ProcessId(0), ProcessId(1)]);
        assert_eq!(chain.name_of(ProcessId(1)), Some("d"));
        let token = |index: usize| chain.steps[index].token;
        assert_eq!(chain.step(ProcessId(0), token(2)), Some(2));
        assert_eq!(chain.step(ProcessId(1), token(2)), None);
        assert_eq!(chain.step(ProcessId(0), token(1)), None);
        let mut all: Vec<u64> =
            chains.chains.iter().flat_map(|chain| &chain.steps).map(|step| step.token).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        let seen = |incoming, outgoing| Subsystems { incoming, outgoing };
        assert_eq!(chains.subsystems(&config), [seen(true, false), seen(true, true)]);
        assert!(chains.get(FilterId(99)).is_none());
    }
}
