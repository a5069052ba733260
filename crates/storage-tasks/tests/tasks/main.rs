//! Tasks, results, events and schedules on every kind of store: all in one batch, queue elsewhere, events and results elsewhere, and backends that are
//! atomic within a record alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the cases are tests, called by generated ones")]

mod crash;
mod events;
mod faults;
mod lifecycle;
mod results;
mod schedules;
mod world;

use world::World;

/// Every case on one world, each as a test of its own.
macro_rules! suite {
    ($($world:ident),+) => { $(mod $world { suite!(@ $world:
        lifecycle {
            a_task_runs_and_leaves_its_result
            priority_delay_and_batch_pass_through
            submitted_twice_it_runs_once
            of_eight_creators_one_is_first
            many_are_submitted_together
            a_failure_is_tried_again_up_to_the_cap
            a_fatal_failure_and_a_panic
            a_finished_task_is_not_run_again
            a_worker_of_some_kinds_drains_these
            a_waiting_task_is_cancelled
            a_running_task_is_asked_to_stop
            a_failed_task_is_sent_again_by_hand
            an_attempt_that_was_taken_over_does_not_count
            what_is_put_back_does_not_count
            a_duplicate_message_runs_nothing
            a_task_not_started_in_time_fails
            what_is_deleted_can_come_again
            lists_are_narrowed_and_paged
            readers_see_a_task_all_the_time_it_moves
            finished_tasks_are_kept_as_long_as_told
            kinds_without_a_handler_wait_for_another_worker
        }
        crash {
            a_submission_may_end_anywhere
            a_run_may_end_anywhere
            a_cancel_may_end_anywhere
            a_retry_may_end_anywhere
            two_relays_run_each_task_once
        }
        events {
            a_task_leaves_its_trace
            events_are_listed_by_task_kind_and_time
            a_tail_misses_nothing_of_four_writers
            a_tail_sees_late_and_early_clocks_once
            a_tail_from_now_begins_now
            a_tail_goes_on_after_an_error
        }
        results {
            waiting_for_a_result_is_woken
            waiting_ends_in_time
            results_are_kept_as_long_as_told
            results_on_blobs
        }
        schedules {
            two_schedulers_fire_each_tick_once
            a_scheduler_may_end_anywhere
            missed_ticks_do_as_they_are_told
            once_paused_and_removed
            a_schedule_is_triggered_by_hand
            bad_schedules_are_refused
        }
    ); })+ };
    (@ $world:ident: $($module:ident { $($case:ident)+ })+) => { $($(
        #[tokio::test]
        async fn $case() {
            crate::$module::$case(crate::World::$world().await).await;
        }
    )+)+ };
}

suite!(memory, split, apart, reduced, bucket, sqlite, fs);
