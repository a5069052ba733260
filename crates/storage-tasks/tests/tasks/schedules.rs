//! Schedules.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use storage_core::ErrorKind;
use storage_tasks::{Misfire, NewSchedule, ScheduleSpec, Scheduler, SchedulerOptions, SubmitOptions, TaskFilter, TaskStore};

use crate::world::World;

/// How often each task was submitted, by its events.
async fn submissions(tasks: &TaskStore) -> BTreeMap<String, u32> {
    let (mut count, mut after) = (BTreeMap::new(), None);
    loop {
        let page = tasks.events().list(&Default::default(), 1000, after).await.unwrap();
        for event in page.events.into_iter().filter(|event| event.kind == "submitted") {
            *count.entry(event.task_id).or_default() += 1;
        }
        after = page.next;
        if after.is_none() {
            return count;
        }
    }
}

fn every_second(name: &str) -> NewSchedule {
    NewSchedule::new(name, ScheduleSpec::every(Duration::from_secs(1)), "x", json!({"from": name}))
}

/// 1,000 ticks of ten schedules, two schedulers in processes of their own, both at it all the time.
pub(crate) async fn two_schedulers_fire_each_tick_once(world: World) {
    let (schedules, tasks) = (world.schedules().await, world.tasks().await);
    for n in 0..10 {
        schedules.add(every_second(&format!("s{n}"))).await.unwrap();
    }
    let start = world.clock.now();
    let mut schedulers = Vec::new();
    for _ in 0..2 {
        let process = world.another_process();
        let (schedules, tasks) = (process.schedules().await, process.tasks().await);
        schedulers.push(Scheduler::new(&schedules, &tasks, SchedulerOptions { batch: 7, ..SchedulerOptions::default() }));
    }
    let mut fired = 0;
    for _ in 0..100 {
        world.clock.advance(Duration::from_secs(1));
        loop {
            let (a, b) = tokio::join!(schedulers[0].tick(), schedulers[1].tick());
            let (a, b) = (a.unwrap(), b.unwrap());
            assert_eq!((a.repeated + b.repeated, a.failed + b.failed), (0, 0), "claims keep them apart");
            fired += a.fired + b.fired;
            if schedules.next_wake().await.unwrap().unwrap() > world.clock.now() {
                break;
            }
        }
    }
    assert_eq!(fired, 1000);
    let submitted = submissions(&tasks).await;
    assert_eq!(submitted.len(), 1000);
    assert!(submitted.values().all(|times| *times == 1));
    for second in [1, 100] {
        let tick = start + Duration::from_secs(second);
        assert!(submitted.contains_key(&schedules.get("s3").await.unwrap().unwrap().tick_id(tick)));
    }
    let task = tasks.list(&TaskFilter::default(), 1, None).await.unwrap().tasks.remove(0);
    assert_eq!((task.kind.as_str(), task.input), ("x", json!({"from": "s0"})));
}

/// A scheduler that ends after any write: no tick is lost, none fires twice.
pub(crate) async fn a_scheduler_may_end_anywhere(world: World) {
    let (schedules, tasks) = (world.schedules().await, world.tasks().await);
    let mut ticks = 0;
    for takes_effect in [false, true] {
        let mut ended = true;
        for writes in 0..30 {
            let name = format!("{takes_effect}-{writes}");
            schedules.add(every_second(&name)).await.unwrap();
            let dying = world.another_process();
            let (own_schedules, own_tasks) = (dying.schedules().await, dying.tasks().await);
            world.clock.advance(Duration::from_secs(3));
            ticks += 3;
            dying.faults.end_after(writes, takes_effect);
            let scheduler = Scheduler::new(&own_schedules, &own_tasks, SchedulerOptions::default());
            tokio::select! {
                biased;
                () = dying.faults.ended() => {}
                _ = scheduler.tick() => {}
            }
            ended = dying.faults.restart();
            schedules.pause(&name).await.unwrap();
            world.recover(&tasks).await;
            let survivor = Scheduler::new(&schedules, &tasks, SchedulerOptions::default());
            // Paused before it was claimed, it does not fire at all.
            let claimed = schedules.get(&name).await.unwrap().unwrap().last_at.is_some();
            ticks -= if claimed { 0 } else { 3 };
            let report = survivor.tick().await.unwrap();
            assert_eq!(report.failed, 0);
            assert!(schedules.get(&name).await.unwrap().unwrap().claimed.is_empty());
            let submitted = submissions(&tasks).await;
            assert_eq!(submitted.len(), ticks, "{name}");
            assert!(submitted.values().all(|times| *times == 1));
            if !ended {
                break;
            }
        }
        assert!(!ended, "the last round went through to its end");
    }
}

pub(crate) async fn missed_ticks_do_as_they_are_told(world: World) {
    let (schedules, tasks) = (world.schedules().await, world.tasks().await);
    let scheduler = Scheduler::new(&schedules, &tasks, SchedulerOptions::default());
    let minutely = |name: &str| NewSchedule::new(name, ScheduleSpec::every(Duration::from_secs(60)), "x", 1);
    for (name, misfire) in
        [("skip", Misfire::Skip), ("once", Misfire::Once), ("all", Misfire::All(5)), ("many", Misfire::All(1000))]
    {
        schedules.add(minutely(name).misfire(misfire)).await.unwrap();
    }
    schedules.add(NewSchedule::new("past", ScheduleSpec::at(world.clock.now() + Duration::from_secs(1)), "x", 1)).await.unwrap();
    // Half a minute behind a tick, which is punctual; 29 before it are missed.
    world.clock.advance(Duration::from_secs(30 * 60 + 30));
    assert_eq!(scheduler.tick().await.unwrap().fired, 1 + 2 + 6 + 30 + 1);
    let count = |name: &'static str| {
        let tasks = tasks.clone();
        async move { submissions(&tasks).await.keys().filter(|id| id.starts_with(&format!("{name}@"))).count() }
    };
    assert_eq!((count("skip").await, count("once").await, count("all").await, count("many").await), (1, 2, 6, 30));
    assert_eq!(scheduler.tick().await.unwrap().fired, 0);
    assert_eq!(schedules.get("past").await.unwrap().unwrap().next_at, None);
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(scheduler.tick().await.unwrap().fired, 4);
}

pub(crate) async fn once_paused_and_removed(world: World) {
    let (schedules, tasks) = (world.schedules().await, world.tasks().await);
    let scheduler = Scheduler::new(&schedules, &tasks, SchedulerOptions::default());
    schedules.add(every_second("a")).await.unwrap();
    assert_eq!(schedules.add(every_second("a")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let paused = schedules.pause("a").await.unwrap();
    assert!(paused.paused);
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(scheduler.tick().await.unwrap().fired, 0);
    let resumed = schedules.resume("a").await.unwrap();
    assert!(resumed.next_at.unwrap() > world.clock.now(), "what passed meanwhile is missed for good");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(scheduler.tick().await.unwrap().fired, 1);
    assert_eq!(schedules.list(10, None).await.unwrap().schedules.len(), 1);
    assert!(schedules.remove("a").await.unwrap());
    assert!(!schedules.remove("a").await.unwrap());
    assert_eq!(schedules.pause("a").await.unwrap_err().kind(), ErrorKind::NotFound);
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(scheduler.tick().await.unwrap().fired, 0);
    assert_eq!(schedules.next_wake().await.unwrap(), None);
}

pub(crate) async fn a_schedule_is_triggered_by_hand(world: World) {
    let (schedules, tasks) = (world.schedules().await, world.tasks().await);
    let scheduler = Scheduler::new(&schedules, &tasks, SchedulerOptions::default());
    let options = SubmitOptions::default().resource_id("acme").priority(3);
    schedules.add(NewSchedule::new("nightly", ScheduleSpec::cron("0 3 * * *"), "report", 1).options(options)).await.unwrap();
    let task = scheduler.trigger("nightly").await.unwrap().task;
    assert_eq!((task.resource_id.as_str(), task.priority, task.kind.as_str()), ("acme", 3, "report"));
    assert!(task.task_id.starts_with("nightly@manual-"));
    assert_eq!(scheduler.trigger("daily").await.unwrap_err().kind(), ErrorKind::NotFound);
    // Run as a service until told to stop.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.run(async { drop(stopped.await) }).await }
    });
    stop.send(()).unwrap();
    assert_eq!(running.await.unwrap().failed, 0);
}

pub(crate) async fn bad_schedules_are_refused(world: World) {
    let schedules = world.schedules().await;
    let refused = |schedule: NewSchedule| {
        let schedules = schedules.clone();
        async move {
            let error = schedules.add(schedule).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    };
    let with = |spec| NewSchedule::new("a", spec, "x", 1);
    refused(with(ScheduleSpec::cron("* * *"))).await;
    refused(with(ScheduleSpec::cron("0 0 30 2 *"))).await;
    refused(with(ScheduleSpec::cron_in("* * * * *", "Mars/Olympus"))).await;
    refused(with(ScheduleSpec::every(Duration::ZERO))).await;
    refused(every_second("a").misfire(Misfire::All(0))).await;
    refused(every_second("")).await;
    refused(every_second("a\nb")).await;
}
