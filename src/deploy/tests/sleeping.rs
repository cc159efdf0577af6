//! Functions that sleep while nobody calls.

use super::*;

fn state(stage: &Stage, name: &str) -> State {
    stage.deployer.get(&Name::parse(name).unwrap()).unwrap().state()
}

#[test]
fn handlers_that_nobody_calls_are_stopped_and_the_next_call_starts_them() {
    let stage = Stage::new("idle");
    *lock(&stage.idle) = Some(IDLE);
    stage.run(async {
        stage.deploy("f", "one", 2).await.unwrap();
        for _ in 0..3 {
            stage.until("it sleeps", |s| state(s, "f") == State::Idle && s.backend.alive().is_empty()).await;
            assert!(stage.dispatch.function("f").unwrap().is_serving(), "a call is served");
            assert_eq!(stage.call("f").await, stage.digest("f"));
        }
        assert!(lock(&stage.backend.forgotten).is_empty(), "what was prepared is kept");
    });
}

#[test]
fn no_call_is_lost_however_close_to_the_sleep_it_comes() {
    let stage = Stage::new("close");
    *lock(&stage.idle) = Some(IDLE);
    stage.run(async {
        stage.deploy("f", "one", 2).await.unwrap();
        let digest = stage.digest("f");
        let mut sleeps = 0;
        let mut calls = 0;
        while sleeps < 20 {
            // Around the time at which it falls asleep, in steps far smaller than what falling asleep takes.
            Timer::after(IDLE - Duration::from_millis(1) + Duration::from_micros(calls % 100 * 20)).await;
            assert_eq!(stage.call("f").await, digest, "{calls} calls, {sleeps} sleeps");
            calls += 1;
            let started = stage.backend.next.load(Ordering::Relaxed);
            sleeps = (started - 2) / 2;
        }
    });
}

#[test]
fn a_call_that_cannot_wake_its_function_is_told_why_and_the_function_wakes_when_it_can() {
    let stage = Stage::new("wakes-not");
    *lock(&stage.idle) = Some(IDLE);
    stage.run(async {
        stage.deploy("f", "one", 2).await.unwrap();
        stage.until("it sleeps", |s| state(s, "f") == State::Idle).await;
        *lock(&stage.backend.broken) = true;
        let error = stage.try_call("f").await.unwrap_err();
        assert_eq!(error.kind, crate::call::FailureKind::Unavailable);
        assert!(error.text.contains("f could not be started") && error.text.contains("exit status 1"), "{error}");
        let started = stage.backend.next.load(Ordering::Relaxed);
        let error = stage.try_call("f").await.unwrap_err();
        assert!(error.text.contains("exit status 1"), "{error}");
        assert_eq!(stage.backend.next.load(Ordering::Relaxed), started, "not tried again at once");
        stage.until("it sleeps again", |s| s.backend.alive().is_empty() && state(s, "f") == State::Idle).await;
        *lock(&stage.backend.broken) = false;
        stage.until("it may be tried again", |s| s.dispatch.function("f").unwrap().is_serving()).await;
        assert_eq!(stage.call("f").await, stage.digest("f"));
    });
}

#[test]
fn a_function_that_sleeps_can_be_replaced_and_deleted() {
    let stage = Stage::new("sleeps");
    *lock(&stage.idle) = Some(IDLE);
    stage.run(async {
        stage.deploy("f", "one", 1).await.unwrap();
        stage.until("it sleeps", |s| state(s, "f") == State::Idle).await;
        *lock(&stage.idle) = None;
        stage.deploy("f", "two", 1).await.unwrap();
        assert_eq!((stage.call("f").await, state(&stage, "f")), (stage.digest("f"), State::Healthy));
        stage.until("the first version is forgotten", |s| lock(&s.backend.forgotten).len() == 1).await;
        *lock(&stage.idle) = Some(IDLE);
        stage.deploy("g", "one", 1).await.unwrap();
        stage.until("it sleeps", |s| state(s, "g") == State::Idle).await;
        for name in ["f", "g"] {
            stage.deployer.delete(&Name::parse(name).unwrap()).await.unwrap();
        }
        assert_eq!(stage.try_call("g").await.unwrap_err().kind, crate::call::FailureKind::UnknownFunction);
        assert!(stage.backend.alive().is_empty());
    });
}

#[test]
fn after_a_start_a_function_that_may_sleep_has_no_handlers_until_it_is_called() {
    let stage = Stage::new("restore-idle");
    *lock(&stage.idle) = Some(Duration::from_secs(3600));
    stage.run(stage.deploy("f", "one", 2)).unwrap();
    let before = stage;
    let stage = before.again(Played { next: AtomicUsize::new(10), ..Played::default() });
    stage.run(async {
        stage.restore().await;
        assert_eq!((state(&stage, "f"), stage.backend.alive().len()), (State::Idle, 0));
        assert_eq!(stage.call("f").await, stage.digest("f"));
        stage.until("both handlers run", |s| state(s, "f") == State::Healthy).await;
    });
}

#[test]
fn a_function_with_no_room_to_wait_is_woken_by_a_call_that_is_refused() {
    let stage = Stage::new("no-queue");
    *lock(&stage.idle) = Some(Duration::from_millis(300));
    *lock(&stage.queue) = 0;
    stage.run(async {
        stage.deploy("f", "one", 1).await.unwrap();
        stage.until("it sleeps", |s| state(s, "f") == State::Idle).await;
        assert_eq!(stage.try_call("f").await.unwrap_err().kind, crate::call::FailureKind::QueueFull);
        stage.until("it was woken", |s| state(s, "f") == State::Healthy).await;
        assert_eq!(stage.call("f").await, stage.digest("f"));
    });
}
