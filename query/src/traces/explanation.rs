//! Why each span of a trace was linked, or not.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::hop::{Derived, Question, SpanUse};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::span::Span;

use super::view::HopView;

/// What the rules made of one span.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SpanExplanation {
    pub span_id: String,
    pub parent_span_id: Option<String>,
    /// Whether the parent was received; `null` for roots.
    pub parent_received: Option<bool>,
    pub name: String,
    pub kind: &'static str,
    pub proxy_kind: &'static str,
    pub proxy_rule: &'static str,
    pub vantage: &'static str,
    pub vantage_rule: &'static str,
    pub role: &'static str,
    pub role_rule: &'static str,
    pub shared_id: bool,
    pub error: bool,
    pub fault: &'static str,
    pub fault_rule: &'static str,
    pub reasons: Vec<String>,
    /// `hop`, `phase` or `unlinked`.
    pub usage: &'static str,
    /// Places in `hops`.
    pub hops: Vec<u32>,
    /// Why an unlinked span is in no hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
}

/// A question that only other traces can answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FactView {
    /// `S4`: whose an address was; `L1`: which request the trace goes on with; `L2`: it also
    /// begins with a call of that trace, which is counted there.
    pub rule: &'static str,
    /// The address, or the request id.
    pub asked: String,
    /// The node, or the trace that holds the request; `null` with a reason when nobody says, or several do.
    pub answer: Option<String>,
    /// L1: the public route of that request.
    pub route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

impl FactView {
    fn new(question: &Question, facts: &[Told]) -> Self {
        let silent =
            |rule, asked: String, reason| Self { rule, asked, answer: None, route: None, reason: Some(reason) };
        match question {
            Question::Address { ip, .. } => match facts.iter().find(|told| told.ip.as_deref() == Some(&ip.to_string()))
            {
                Some(Told { service: Some(service), .. }) => {
                    Self { rule: "S4", asked: ip.to_string(), answer: Some(service.clone()), route: None, reason: None }
                }
                Some(_) => silent("S4", ip.to_string(), "several workloads had this address at the time"),
                None => silent("S4", ip.to_string(), "no span of a workload with this address was received"),
            },
            Question::Entry { request_id, .. } => match facts.iter().find(|told| told.is_entry) {
                Some(Told { trace: Some(trace), route, continues_call, .. }) => Self {
                    rule: if *continues_call { "L2" } else { "L1" },
                    asked: request_id.to_string(),
                    answer: Some(trace.clone()),
                    route: route.clone(),
                    reason: None,
                },
                Some(_) => silent("L1", request_id.to_string(), "several requests of gateways have this id"),
                None => silent("L1", request_id.to_string(), "no request of a gateway with this id was received"),
            },
        }
    }
}

/// A stored fact, as its span says it.
struct Told {
    is_entry: bool,
    ip: Option<String>,
    service: Option<String>,
    trace: Option<String>,
    route: Option<String>,
    continues_call: bool,
}

impl Told {
    fn read(span: &Span) -> Self {
        let text = |key: &str| span.attributes.text(key).map(ToString::to_string);
        let service = match (text("windrose.namespace"), text("windrose.service")) {
            (Some(namespace), Some(service)) => Some(format!("{namespace}/{service}")),
            (_, service) => service,
        };
        let ip = text("windrose.ip");
        Self {
            is_entry: ip.is_none(),
            ip,
            service,
            trace: text("windrose.trace_id"),
            route: text("windrose.route"),
            continues_call: text("windrose.continues_call").is_some(),
        }
    }
}

/// The join of one trace, step by step.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Explanation {
    pub trace_id: String,
    pub spans: Vec<SpanExplanation>,
    pub hops: Vec<HopView>,
    /// What other traces say about this one.
    pub facts: Vec<FactView>,
    pub missing_parents: Vec<String>,
    pub gaps: Vec<&'static str>,
    /// Where the rule ids are explained.
    pub rules: &'static str,
}

impl Explanation {
    /// Words the verdicts of a derived trace.
    #[must_use]
    pub fn new(trace: TraceId, spans: &[Arc<Span>], derived: &Derived) -> Self {
        let by_id: HashMap<SpanId, &Span> = spans.iter().map(|span| (span.span_id, span.as_ref())).collect();
        let explain = |verdict: &windrose_proto::hop::SpanVerdict| {
            let span = by_id.get(&verdict.span_id);
            let parent = span.and_then(|span| span.parent_span_id);
            let (usage, hops, why) = match &verdict.usage {
                SpanUse::Hop { hops } => ("hop", hops.to_vec(), None),
                SpanUse::Phase => ("phase", Vec::new(), None),
                SpanUse::Unlinked { why } => ("unlinked", Vec::new(), Some(*why)),
            };
            SpanExplanation {
                span_id: verdict.span_id.to_string(),
                parent_span_id: parent.map(|id| id.to_string()),
                parent_received: parent.map(|id| by_id.contains_key(&id)),
                name: span.map_or_else(String::new, |span| span.name.to_string()),
                kind: span.map_or("unspecified", |span| span.kind.as_str()),
                proxy_kind: verdict.proxy_kind.as_str(),
                proxy_rule: verdict.proxy_rule.0,
                vantage: verdict.vantage.as_str(),
                vantage_rule: verdict.vantage_rule.0,
                role: verdict.role.as_str(),
                role_rule: verdict.role_rule.0,
                shared_id: verdict.shared_id,
                error: verdict.outcome.error,
                fault: verdict.outcome.fault.as_str(),
                fault_rule: verdict.outcome.fault_rule.0,
                reasons: verdict.outcome.reasons.iter().map(ToString::to_string).collect(),
                usage,
                hops,
                why,
            }
        };
        let told: Vec<Told> = spans.iter().filter(|span| span.is_fact()).map(|span| Told::read(span)).collect();
        Self {
            trace_id: trace.to_string(),
            spans: derived.verdicts.iter().map(explain).collect(),
            hops: derived.hops.iter().map(HopView::new).collect(),
            facts: derived.questions.iter().map(|question| FactView::new(question, &told)).collect(),
            missing_parents: derived.request.missing_parents.iter().map(ToString::to_string).collect(),
            gaps: derived.request.gaps.iter().map(|gap| gap.as_str()).collect(),
            rules: "docs/rules.md",
        }
    }
}
