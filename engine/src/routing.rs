//! Where rows go: the plan's edges, turned round, and the stage that each operator belongs to.

use crate::plan::{From, Operator, Plan};

/// Where an edge ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Operator(usize),
    Sink(usize),
}

/// One way out of a source or an operator.
#[derive(Debug, Clone)]
pub struct Way {
    pub to: To,
    /// Rows with equal values in these columns meet at one worker.
    pub exchange: Option<Vec<usize>>,
}

/// The ways out of everything, and the stages: stage 0 is before any exchange or lookup, stage n after n of them.
#[derive(Debug, Default)]
pub struct Routes {
    pub from_source: Vec<Vec<Way>>,
    pub from_operator: Vec<Vec<Way>>,
    pub stage: Vec<usize>,
    pub stages: usize,
    /// For each operator, the sources whose rows reach it.
    pub upstream: Vec<Vec<usize>>,
    /// For each source, the stages (of stateful operators behind an exchange) that run on its clocks.
    pub clocked_stages: Vec<Vec<usize>>,
}

/// Whether rows wait in an operator, so that a barrier overtakes them: what follows is another stage.
fn is_lookup(plan: &Plan, operator: usize) -> bool {
    matches!(plan.operators[operator].operator, Operator::Lookup(_))
}

impl Routes {
    pub fn of(plan: &Plan) -> Routes {
        let mut routes = Routes {
            from_source: vec![vec![]; plan.sources.len()],
            from_operator: vec![vec![]; plan.operators.len()],
            stages: 1,
            ..Routes::default()
        };
        for (index, node) in plan.operators.iter().enumerate() {
            let (mut stage, mut upstream) = (0, vec![]);
            for edge in &node.inputs {
                let (before, sources) = match edge.from {
                    From::Source(source) => (0, vec![source]),
                    From::Operator(operator) => {
                        let waits = is_lookup(plan, operator) as usize;
                        (routes.stage[operator] + waits, routes.upstream[operator].clone())
                    }
                };
                stage = stage.max(before + edge.exchange.is_some() as usize);
                upstream.extend(sources);
                routes.add(edge.from, Way { to: To::Operator(index), exchange: edge.exchange.clone() });
            }
            upstream.sort_unstable();
            upstream.dedup();
            routes.stages = routes.stages.max(stage + 1 + is_lookup(plan, index) as usize);
            routes.stage.push(stage);
            routes.upstream.push(upstream);
        }
        for (index, node) in plan.sinks.iter().enumerate() {
            for edge in &node.inputs {
                routes.add(edge.from, Way { to: To::Sink(index), exchange: edge.exchange.clone() });
            }
        }
        routes.clocked_stages = (0..plan.sources.len()).map(|source| routes.clocked(plan, source)).collect();
        routes
    }

    fn add(&mut self, from: From, way: Way) {
        match from {
            From::Source(source) => self.from_source[source].push(way),
            From::Operator(operator) => self.from_operator[operator].push(way),
        }
    }

    fn clocked(&self, plan: &Plan, source: usize) -> Vec<usize> {
        let stateful = |o: usize| matches!(plan.operators[o].operator, Operator::Deduplicate(_));
        let mut stages: Vec<usize> = (0..plan.operators.len())
            .filter(|o| stateful(*o) && self.stage[*o] > 0 && self.upstream[*o].contains(&source))
            .map(|o| self.stage[o])
            .collect();
        stages.sort_unstable();
        stages.dedup();
        stages
    }
}
