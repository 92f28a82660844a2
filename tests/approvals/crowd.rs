//! A thousand requests wait for fifty questions, and everything happens to them at once.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::{ASKED, answer, pending};
use crate::harness::{Request, Way, World, eventually};

const REQUESTS: usize = 1000;
const QUESTIONS: usize = 50;

/// Throws dice that fall alike in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

/// What is done to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Approved,
    Denied,
    Ignored,
}

#[tokio::test]
async fn a_thousand_requests_and_fifty_questions_leave_nothing_behind() {
    let config = "[approvals]\ntimeout = \"25s\"\nanswerable = \"2s\"";
    let world = World::with_policy(ASKED).config(config).start().await;
    let gate = &world.gate;
    let mut dice = Dice(0x5eed_cafe_f00d_0001);
    let host = |number: usize| format!("h{number}.asked.test");
    let mut waiting = Vec::new();
    for number in 0..REQUESTS {
        let host = host(number % QUESTIONS);
        let (agent, way) =
            (world.agent.clone(), if number.is_multiple_of(20) { Way::Http2 } else { Way::Absolute });
        let request = Request::get(&host, &format!("/{number}"));
        let (origin, proxy) = (world.agent.absolute(&request), gate.proxy);
        // Clients with patience of their own: longer than the gateway's.
        waiting.push((
            host,
            tokio::spawn(async move {
                if way == Way::Http2 {
                    let raw = agent.tls(&request, b"h2").await.unwrap();
                    return agent.send_http2(raw, &request).await;
                }
                let mut raw = crate::harness::Raw::open(proxy).await;
                raw.send(origin.concat()).await;
                tokio::time::timeout(
                    Duration::from_secs(60),
                    crate::harness::Answer::read(&mut raw.input, "GET"),
                )
                .await
                .unwrap()
            }),
        ));
    }
    // Over TLS another port, so another question.
    let questions = eventually("everybody to wait", async || {
        let pending = pending(gate).await;
        let requests: u64 = pending.iter().map(|question| question["requests"].as_u64().unwrap()).sum();
        (requests == REQUESTS as u64).then_some(pending)
    })
    .await;
    let in_tls = (0..REQUESTS).filter(|number| number.is_multiple_of(20)).map(|number| number % QUESTIONS);
    let in_tls = in_tls.collect::<std::collections::HashSet<_>>().len();
    let in_clear = (0..REQUESTS).filter(|number| !number.is_multiple_of(20)).map(|number| number % QUESTIONS);
    let in_clear = in_clear.collect::<std::collections::HashSet<_>>().len();
    assert_eq!(questions.len(), in_tls + in_clear);
    world.origin.must_be_untouched();
    assert!(world.resolver.log().iter().all(|name| !name.contains("asked.test")), "nothing is looked up");
    assert_eq!(gate.decisions_now().await.len(), 0, "nothing is decided");

    // Some give up, some are answered, some wait to the end.
    let mut gone: HashMap<String, usize> = HashMap::new();
    let mut left = Vec::new();
    for (host, waiting) in waiting {
        if dice.below(5) == 0 {
            waiting.abort();
            *gone.entry(host).or_default() += 1;
        } else {
            left.push((host, waiting));
        }
    }
    let mut fates = HashMap::new();
    for question in &questions {
        let fate = [Fate::Approved, Fate::Denied, Fate::Ignored][dice.below(3)];
        let destination = question["destination"].as_str().unwrap().to_owned();
        match fate {
            Fate::Approved => {
                drop(answer(gate, question, "approve", ["once", "session", "1h"][dice.below(3)]).await)
            }
            Fate::Denied => drop(answer(gate, question, "deny", "once").await),
            Fate::Ignored => {}
        }
        fates.insert(destination, fate);
    }
    let mut told: HashMap<Option<String>, usize> = HashMap::new();
    let left_count = left.len();
    for (_, waiting) in left {
        let answered = waiting.await.unwrap();
        let reason = answered.reason().map(str::to_owned).or((answered.status != 200).then(String::new));
        *told.entry(reason).or_default() += 1;
    }
    assert_eq!(told.values().sum::<usize>(), left_count);
    assert!(!told.contains_key(&Some(String::new())), "everybody is told: {told:?}");

    let rows = gate.decisions_reach(REQUESTS).await;
    assert_eq!(rows.len(), REQUESTS, "one row a request");
    for row in &rows {
        let destination = format!("{}://{}:{}", row.text("scheme"), row.text("host"), row.number("port"));
        let expected = match (fates[&destination], row.text("outcome")) {
            (Fate::Ignored, _) | (_, "abandoned") => "approval_timeout",
            (Fate::Denied, _) => "approval_denied",
            (Fate::Approved, _) => "allowed_by_approval",
        };
        // Whoever went just after the answer passed by it, or was refused by it.
        let late = row.text("outcome") == "abandoned" && row.text("reason") == "allowed_by_approval";
        assert!(row.text("reason") == expected || late, "{destination} {:?}: {row:?}", fates[&destination]);
        assert_eq!(row.text("rule"), "a person says");
    }
    let abandoned = rows.iter().filter(|row| row.text("outcome") == "abandoned").count();
    let gone: usize = gone.values().sum();
    assert!(abandoned <= gone && abandoned > gone / 2, "{abandoned} of {gone}");
    let approved = rows.iter().filter(|row| row.text("reason") == "allowed_by_approval").count();
    assert!(world.origin.accepts() as usize <= approved + 1, "nothing was dialled for the others");
    eventually("every question to be over", async || {
        let answer = gate.ask_admin("GET", "/api/approvals", None).await;
        let listed: Value = serde_json::from_str(&answer.text()).unwrap();
        listed["approvals"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    assert_eq!(gate.metric("outgate_approvals_pending", &[]).await, 0.0);
    assert_eq!(gate.metric("outgate_requests_in_flight", &[]).await, 0.0);
    world.finish().await;
}
