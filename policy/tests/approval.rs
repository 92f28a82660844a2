//! Questions and answers in any order: nobody passes by an answer that was not given to them, nobody is answered
//! twice, and nothing is left behind.
#![expect(clippy::unwrap_used, reason = "a test stops at the first flaw")]

use std::collections::{HashMap, HashSet};

use policy::approval::{
    About, Answer, Asked, Desk, Effect, Event, QUESTIONS, QUESTIONS_OF_AGENT, Refused, RequestId, State,
    Unanswerable, WANTED,
};
use policy::decide::{Holder, Methods, Point};
use policy::identity::SessionId;
use policy::redact::Redactor;
use policy::secret::Secrets;
use policy::target::Target;
use proptest::prelude::*;
use ulid::Ulid;

const SECOND: i64 = 1_000_000;
const ANSWERABLE: i64 = 600 * SECOND;
const PATIENCE: i64 = 120 * SECOND;

fn about(agent: &str, host: &str, methods: Methods) -> About {
    About {
        agent: agent.parse().unwrap(),
        target: Target::from_connect(format!("{host}:443").as_bytes()).unwrap(),
        methods,
        point: Point::Rule("the rule".into()),
    }
}

fn session(number: u8) -> Option<SessionId> {
    (number > 0).then(|| SessionId(Ulid::from_parts(7, number.into())))
}

struct Room {
    desk: Desk,
    now: i64,
    next: RequestId,
}

impl Room {
    fn new() -> Room {
        Room { desk: Desk::new(ANSWERABLE), now: SECOND, next: 1 }
    }

    fn ask(&mut self, about: &About, session: Option<SessionId>) -> (RequestId, Vec<Effect>) {
        self.ask_for(about, session, None)
    }

    fn ask_for(
        &mut self,
        about: &About,
        session: Option<SessionId>,
        path: Option<&str>,
    ) -> (RequestId, Vec<Effect>) {
        let path = path.map(|path| Redactor::new(Secrets::detectors()).text(path));
        let request = self.next;
        self.next += 1;
        let asked = Asked {
            request,
            about: about.clone(),
            session,
            method: None,
            path,
            id: Ulid::from_parts(1, request.into()),
            until: self.now + PATIENCE,
        };
        let effects = self.desk.handle(Event::Asked(asked), self.now);
        (request, effects)
    }

    fn asked(&mut self, about: &About) -> (RequestId, Ulid) {
        match &*self.ask(about, None).1 {
            [Effect::Wait { request, question, .. }] => (*request, *question),
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, question: Ulid, answer: Answer) -> Vec<Effect> {
        self.answer_shown(question, answer, WANTED)
    }

    fn answer_shown(&mut self, question: Ulid, answer: Answer, shown: usize) -> Vec<Effect> {
        self.desk.handle(Event::Answered { question, answer, shown }, self.now)
    }
}

#[test]
fn equal_questions_are_one_and_every_difference_makes_another() {
    let mut room = Room::new();
    let subject = about("a", "one.test", Methods::Reading);
    let (_, first) = room.asked(&subject);
    assert_eq!(room.asked(&subject).1, first);
    let others = [
        about("b", "one.test", Methods::Reading),
        about("a", "two.test", Methods::Reading),
        about("a", "one.test", Methods::Writing),
        About { point: Point::Default, ..subject.clone() },
        About { point: Point::Rule("another".into()), ..subject },
    ];
    let mut seen = HashSet::from([first]);
    assert!(others.iter().all(|other| seen.insert(room.asked(other).1)));
    let requests: Vec<u64> = room.desk.questions().map(|question| question.requests).collect();
    assert_eq!(requests, [2, 1, 1, 1, 1, 1]);
    assert_eq!(room.desk.count_pending(), 6);
}

#[test]
fn an_answer_for_once_lets_pass_what_waits_and_the_next_is_asked_again() {
    let mut room = Room::new();
    let subject = about("a", "one.test", Methods::Reading);
    let ((one, question), (two, _)) = (room.asked(&subject), room.asked(&subject));
    let effects = room.answer(question, Answer::Once);
    let passed: Vec<RequestId> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Decide { request, once: Some(grant) } => {
                assert_eq!((&grant.agent, &grant.target), (&subject.agent, &subject.target));
                assert_eq!((&grant.point, grant.methods), (&subject.point, subject.methods));
                *request
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(passed, [one, two]);
    assert_eq!(room.desk.grants().count(), 0, "nothing is kept");
    assert_eq!(room.answer(question, Answer::Hour), [], "it was answered");
    assert_eq!(room.desk.pending(question, room.now).unwrap_err(), Unanswerable::Answered);
    assert_ne!(room.asked(&subject).1, question);
}

#[test]
fn an_answer_for_once_is_about_what_was_shown_and_the_rest_is_asked_again() {
    let mut room = Room::new();
    let subject = about("a", "one.test", Methods::Reading);
    let ask = |room: &mut Room, path: &str| match &*room.ask_for(&subject, session(1), Some(path)).1 {
        [Effect::Wait { request, question, new }] => (*request, *question, *new),
        other => panic!("{other:?}"),
    };
    let (one, question, _) = ask(&mut room, "/one");
    let (two, ..) = ask(&mut room, "/two");
    let (again, ..) = ask(&mut room, "/one");
    let (three, ..) = ask(&mut room, "/three");
    let listed = |room: &Room| {
        let question = room.desk.questions().next().unwrap();
        let paths = question.wanted.iter().map(|wanted| wanted.path.as_ref().unwrap().as_str().to_owned());
        (paths.collect::<Vec<_>>(), question.waiting(), question.unlisted())
    };
    assert_eq!(listed(&room), (["/one", "/two", "/three"].map(str::to_owned).to_vec(), 4, 0));
    let effects = room.answer_shown(question, Answer::Once, 2);
    let passes = |request| move |effect: &Effect| matches!(effect, Effect::Decide { request: of, once: Some(_) } if *of == request);
    assert!([one, two, again].into_iter().all(|request| effects.iter().any(passes(request))), "{effects:?}");
    let Some(Effect::Wait { request, question: next, new: true }) = effects.last() else {
        panic!("{effects:?}")
    };
    assert_eq!((*request, effects.len()), (three, 4));
    assert_ne!(*next, question);
    assert_eq!(listed(&room), (vec!["/three".to_owned()], 1, 0));
    assert_eq!(room.answer_shown(question, Answer::Once, 9), [], "who answers second answers nothing");
    assert_eq!(room.desk.pending(question, room.now).unwrap_err(), Unanswerable::Answered);
    let effects = room.answer_shown(*next, Answer::Once, 0);
    assert!(
        matches!(&*effects, [Effect::Decide { request, .. }] if *request == three),
        "the first was shown"
    );
    assert!(room.desk.is_empty());
}

#[test]
fn an_answer_for_once_that_waits_for_a_retry_waits_for_what_was_shown() {
    let mut room = Room::new();
    let subject = about("a", "one.test", Methods::Reading);
    for (retry, passes) in [("/one", true), ("/two", false), ("/three", false)] {
        let mut question = None;
        for path in ["/one", "/two"] {
            let (request, effects) = room.ask_for(&subject, None, Some(path));
            let [Effect::Wait { question: asked, .. }] = &*effects else { panic!("{effects:?}") };
            question = Some(*asked);
            room.desk.handle(Event::Withdrawn(request), room.now);
        }
        assert_eq!(room.answer_shown(question.unwrap(), Answer::Once, 1), []);
        let (request, effects) = room.ask_for(&subject, None, Some(retry));
        match &*effects {
            [Effect::Decide { once: Some(_), .. }] => assert!(passes, "{retry}"),
            [Effect::Wait { new: true, question: asked, .. }] => {
                assert!(!passes && Some(*asked) != question, "{retry}");
                room.answer(*asked, Answer::Hour);
                room.now += 3600 * SECOND;
                room.desk.handle(Event::Tick, room.now);
            }
            other => panic!("{request}: {other:?}"),
        }
    }
}

#[test]
fn what_is_wanted_beyond_the_list_passes_by_no_answer_for_once() {
    let mut room = Room::new();
    let subject = about("a", "one.test", Methods::Reading);
    for number in 0..WANTED + 3 {
        room.ask_for(&subject, None, Some(&format!("/{number}")));
    }
    let question = room.desk.questions().next().unwrap().clone();
    assert_eq!((question.wanted.len(), question.unlisted()), (WANTED, 3));
    assert_eq!(question.reached(Answer::Once, usize::MAX), WANTED);
    assert_eq!(question.reached(Answer::Session, 1), WANTED + 3);
    let effects = room.answer_shown(question.id, Answer::Once, usize::MAX);
    let new = effects.iter().filter(|effect| matches!(effect, Effect::Wait { new: true, .. })).count();
    let joined = effects.iter().filter(|effect| matches!(effect, Effect::Wait { new: false, .. })).count();
    assert_eq!((effects.len(), new, joined), (WANTED + 3, 1, 2));
    assert_eq!(room.desk.questions().next().unwrap().wanted.len(), 3);
}

#[test]
fn an_answer_for_once_waits_for_one_retry_where_nobody_waits() {
    let mut room = Room::new();
    let subject = about("a", "one.test", Methods::Reading);
    let (request, question) = room.asked(&subject);
    room.now += PATIENCE;
    let why = Refused::TimedOut;
    assert_eq!(room.desk.handle(Event::TimedOut(request), room.now), [Effect::Refuse { request, why }]);
    assert_eq!(room.desk.handle(Event::TimedOut(request), room.now), [], "it is told once");
    room.now += ANSWERABLE - 1;
    assert_eq!(room.answer(question, Answer::Once), []);
    let (retry, effects) = room.ask(&subject, None);
    assert!(matches!(&*effects, [Effect::Decide { request, once: Some(_) }] if *request == retry));
    assert_ne!(room.asked(&subject).1, question, "one retry, not two");
}

#[test]
fn a_denial_holds_for_retries_until_the_question_is_over() {
    let mut room = Room::new();
    let subject = about("a", "one.test", Methods::Reading);
    let (request, question) = room.asked(&subject);
    let why = Refused::Denied;
    assert_eq!(room.answer(question, Answer::Deny), [Effect::Refuse { request, why }]);
    assert_eq!(room.answer(question, Answer::Once), [], "a person has answered");
    assert_eq!(room.desk.questions().next().unwrap().state, State::Denied);
    room.now += ANSWERABLE - 1;
    let (request, effects) = room.ask(&subject, None);
    assert_eq!(effects, [Effect::Refuse { request, why }]);
    room.now += 1;
    assert_ne!(room.asked(&subject).1, question, "it is asked anew");
}

#[test]
fn lasting_answers_are_grants_to_exactly_who_asked_what_was_asked() {
    let mut room = Room::new();
    let subject = about("a", "one.test", Methods::Writing);
    for number in [1, 0, 1] {
        room.ask(&subject, session(number));
    }
    let question = room.desk.questions().next().unwrap().id;
    let effects = room.answer(question, Answer::Session);
    assert_eq!(effects[0], Effect::Granted, "before anything is decided again");
    assert_eq!(effects[1..].iter().filter(|e| matches!(e, Effect::Decide { once: None, .. })).count(), 3);
    let mut holders: Vec<Holder> = room.desk.grants().map(|grant| grant.holder).collect();
    holders.sort();
    assert_eq!(holders, [Holder::Session(None), Holder::Session(session(1))]);

    let other = about("a", "two.test", Methods::Reading);
    let (_, question) = room.asked(&other);
    room.answer(question, Answer::Hour);
    let grant = room.desk.grants().find(|grant| grant.target == other.target).unwrap().clone();
    assert_eq!(grant.until, Some(room.now + 3600 * SECOND));
    assert_eq!((grant.holder, grant.methods), (Holder::Agent, Methods::Reading));
    room.now += 3600 * SECOND;
    assert_eq!(room.desk.handle(Event::Tick, room.now), [Effect::Granted]);
    assert!(room.desk.grants().all(|grant| grant.target != other.target), "its hour is over");
}

#[test]
fn a_refusal_that_is_answered_for_once_lets_one_request_pass() {
    let mut room = Room::new();
    let subject = About { point: Point::Refused, ..about("a", "one.test", Methods::Reading) };
    let refused = |request| Event::Refused { request, about: subject.clone() };
    assert_eq!(room.desk.handle(refused(1), room.now), []);
    let offered = |answer| Event::Offered {
        about: subject.clone(),
        session: session(1),
        answer,
        id: Ulid::from_parts(9, 9),
    };
    room.desk.handle(offered(Answer::Once), room.now);
    assert_eq!(room.desk.offers().count(), 1);
    assert!(matches!(&*room.desk.handle(refused(2), room.now), [Effect::Decide { once: Some(_), .. }]));
    assert_eq!(room.desk.handle(refused(3), room.now), []);
    room.desk.handle(offered(Answer::Deny), room.now);
    room.desk.handle(offered(Answer::Always), room.now);
    assert_eq!(room.desk.handle(refused(4), room.now), []);
    assert_eq!(room.desk.handle(offered(Answer::Session), room.now), [Effect::Granted]);
    assert_eq!(room.desk.grants().next().unwrap().holder, Holder::Session(session(1)));
    assert!(room.desk.is_empty());
}

#[test]
fn one_agent_cannot_take_every_place_and_all_of_them_are_limited() {
    let mut room = Room::new();
    let host = |number: usize| format!("host-{number}.test");
    for number in 0..QUESTIONS_OF_AGENT {
        room.asked(&about("greedy", &host(number), Methods::Reading));
    }
    let (request, effects) = room.ask(&about("greedy", "one.more.test", Methods::Reading), None);
    assert_eq!(effects, [Effect::Refuse { request, why: Refused::Crowded }]);
    room.asked(&about("greedy", &host(0), Methods::Reading));
    for number in QUESTIONS_OF_AGENT..QUESTIONS {
        room.asked(&about(&format!("agent-{}", number % 90), &host(number), Methods::Reading));
    }
    let (request, effects) = room.ask(&about("late", "late.test", Methods::Reading), None);
    assert_eq!(effects, [Effect::Refuse { request, why: Refused::Crowded }]);
    room.now += PATIENCE + ANSWERABLE;
    for request in 1..room.next {
        room.desk.handle(Event::Withdrawn(request), room.now);
    }
    room.now += ANSWERABLE;
    room.asked(&about("late", "late.test", Methods::Reading));
}

#[derive(Clone, Debug)]
enum Step {
    Ask { host: u8, session: u8 },
    TimeOut(prop::sample::Index),
    Withdraw(prop::sample::Index),
    Answer(prop::sample::Index, Answer),
    Offer { host: u8, answer: Answer },
    Refused { host: u8 },
    Pass { seconds: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let answer = || prop::sample::select(&Answer::ALL[..]);
    prop_oneof![
        6 => (0..4_u8, 0..3_u8).prop_map(|(host, session)| Step::Ask { host, session }),
        2 => any::<prop::sample::Index>().prop_map(Step::TimeOut),
        2 => any::<prop::sample::Index>().prop_map(Step::Withdraw),
        3 => (any::<prop::sample::Index>(), answer()).prop_map(|(which, answer)| Step::Answer(which, answer)),
        1 => (0..4_u8, answer()).prop_map(|(host, answer)| Step::Offer { host, answer }),
        1 => (0..4_u8).prop_map(|host| Step::Refused { host }),
        2 => (0..400_i64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// What a reader of the page would expect, kept beside the desk.
#[derive(Default)]
struct Book {
    /// Who waits, for what, in which session.
    waiting: HashMap<RequestId, (About, Option<SessionId>)>,
    /// How often each subject may pass for once, and may yet find a denial.
    once: HashMap<About, usize>,
    denied: HashSet<About>,
    granted: HashSet<(About, Holder)>,
}

impl Book {
    fn take(&mut self, effects: &[Effect], subject: Option<&About>) -> Result<(), TestCaseError> {
        for effect in effects {
            match effect {
                Effect::Wait { request, .. } => {
                    prop_assert!(self.waiting.contains_key(request), "somebody waits who did not ask");
                }
                Effect::Decide { request, once } => {
                    let about = self.waiting.remove(request).map(|(about, _)| about).or(subject.cloned());
                    let about = about.unwrap();
                    if let Some(grant) = once {
                        prop_assert_eq!((&grant.agent, &grant.target), (&about.agent, &about.target));
                        prop_assert_eq!((&grant.point, grant.methods), (&about.point, about.methods));
                        let left = self.once.entry(about).or_default();
                        prop_assert!(*left > 0, "nobody allowed this");
                        *left -= 1;
                    }
                }
                Effect::Refuse { request, why } => {
                    let (about, _) = self.waiting.remove(request).unwrap();
                    prop_assert!(*why != Refused::Denied || self.denied.contains(&about), "nobody denied");
                }
                Effect::Granted => {}
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nobody_passes_unanswered_and_nothing_is_left(steps in prop::collection::vec(step(), 1..80)) {
        let mut room = Room::new();
        let mut book = Book::default();
        let subject = |host: u8| about("a", &format!("host-{host}.test"), Methods::Writing);
        let refused = |host: u8| About { point: Point::Refused, ..subject(host) };
        for step in steps {
            match step {
                Step::Ask { host, session: number } => {
                    let about = subject(host);
                    book.waiting.insert(room.next, (about.clone(), session(number)));
                    let (request, effects) = room.ask(&about, session(number));
                    prop_assert_eq!(effects.len(), 1, "a request has one answer or waits");
                    book.take(&effects, None)?;
                    let waits = matches!(effects[0], Effect::Wait { .. });
                    prop_assert_eq!(waits, book.waiting.contains_key(&request));
                }
                Step::TimeOut(which) | Step::Withdraw(which) if book.waiting.is_empty() => {
                    let _ = which;
                }
                Step::TimeOut(which) => {
                    let requests: Vec<RequestId> = book.waiting.keys().copied().collect();
                    let request = *which.get(&requests);
                    let effects = room.desk.handle(Event::TimedOut(request), room.now);
                    prop_assert_eq!(&effects, &[Effect::Refuse { request, why: Refused::TimedOut }]);
                    book.take(&effects, None)?;
                }
                Step::Withdraw(which) => {
                    let requests: Vec<RequestId> = book.waiting.keys().copied().collect();
                    let request = *which.get(&requests);
                    prop_assert_eq!(room.desk.handle(Event::Withdrawn(request), room.now), []);
                    book.waiting.remove(&request);
                }
                Step::Answer(which, answer) => {
                    let questions: Vec<Ulid> = room.desk.questions().map(|question| question.id).collect();
                    if questions.is_empty() {
                        continue;
                    }
                    let id = *which.get(&questions);
                    let Ok(question) = room.desk.pending(id, room.now) else {
                        prop_assert_eq!(room.answer(id, answer), []);
                        continue;
                    };
                    let (about, waited) = (question.about.clone(), question.waiting());
                    let theirs: Vec<_> = book.waiting.values().filter(|(of, _)| *of == about).cloned().collect();
                    prop_assert_eq!(theirs.len(), waited);
                    match answer {
                        Answer::Once => *book.once.entry(about.clone()).or_default() += waited.max(1),
                        Answer::Deny => { book.denied.insert(about.clone()); }
                        Answer::Hour => { book.granted.insert((about.clone(), Holder::Agent)); }
                        Answer::Session => book.granted.extend(
                            (0..3).map(|number| (about.clone(), Holder::Session(session(number)))),
                        ),
                        Answer::Always => {}
                    }
                    let effects = room.answer(id, answer);
                    let told = effects.iter().filter(|effect| **effect != Effect::Granted).count();
                    prop_assert_eq!(told, waited, "everybody who waits is told, once");
                    book.take(&effects, None)?;
                }
                Step::Offer { host, answer } => {
                    let about = refused(host);
                    match answer {
                        Answer::Once => *book.once.entry(about.clone()).or_default() += 1,
                        Answer::Hour => { book.granted.insert((about.clone(), Holder::Agent)); }
                        Answer::Session => { book.granted.insert((about.clone(), Holder::Session(None))); }
                        Answer::Deny | Answer::Always => {}
                    }
                    let id = Ulid::from_parts(2, room.next.into());
                    room.next += 1;
                    room.desk.handle(Event::Offered { about, session: None, answer, id }, room.now);
                }
                Step::Refused { host } => {
                    let about = refused(host);
                    let effects = room.desk.handle(Event::Refused { request: 0, about: about.clone() }, room.now);
                    book.take(&effects, Some(&about))?;
                }
                Step::Pass { seconds } => {
                    room.now += seconds * SECOND;
                    room.desk.handle(Event::Tick, room.now);
                }
            }
            for grant in room.desk.grants() {
                let about = About {
                    agent: grant.agent.clone(),
                    target: grant.target.clone(),
                    methods: grant.methods,
                    point: grant.point.clone(),
                };
                prop_assert!(book.granted.contains(&(about, grant.holder)), "nobody granted {grant:?}");
            }
        }
        for request in book.waiting.keys() {
            room.desk.handle(Event::Withdrawn(*request), room.now);
        }
        room.now += ANSWERABLE;
        room.desk.handle(Event::Tick, room.now);
        prop_assert!(room.desk.is_empty(), "{:?}", room.desk);
    }
}
