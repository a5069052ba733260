//! The lists of cases: each is named here once, and here alone.

/// Makes a test of every record case: a module `records`.
///
/// Takes an expression that makes a [`Harness`](crate::Harness); it is evaluated for each test.
#[macro_export]
macro_rules! test_records {
    ($harness:expr) => {
        $crate::__suite! { $harness; records;
            batch {
                all_writes_or_none, the_error_names_the_failed_write, the_first_failure_is_named,
                writes_take_effect_in_order, versions_grow_within_a_batch, a_batch_of_checks_alone,
                an_empty_batch_does_nothing, reach_is_as_declared, a_missing_table_fails_the_batch, large_batches,
            }
            concurrency {
                version_preconditions_lose_no_update, one_of_many_inserts_succeeds, every_write_counts,
                batches_are_seen_whole, a_cancelled_commit_is_whole_or_nothing, cancelled_reads_hold_nothing,
                a_mixed_load_goes_without_errors,
            }
            crud {
                put_then_get, get_many_keeps_the_order_of_the_keys, a_put_replaces_the_whole_record,
                a_merge_changes_some_fields, a_merge_of_nothing_is_not_found, versions_grow_by_one_with_every_write,
                a_delete_says_whether_there_was_one, an_insert_expects_absence, present_is_checked, versions_are_checked,
                a_check_only_checks, updated_at_is_the_time_of_the_write, keys_of_two_parts, tables_are_apart,
            }
            expiry {
                expired_records_are_not_read, a_record_is_there_until_it_expires, merges_keep_the_expiry_and_puts_set_it,
                preconditions_take_expired_for_absent, unique_values_of_expired_records_are_free, an_expiry_in_the_past,
                many_expired_records, a_sweep_takes_what_has_expired_alone,
            }
            filter {
                null_in_every_operator, an_explicit_null_is_missing, text_is_literal, text_order_is_bytewise, booleans,
                timestamps, bytes, combinations, types_do_not_mix, key_columns, bad_filters_are_refused,
            }
            handles {
                a_second_handle_sees_the_firsts_writes, preconditions_hold_across_handles, data_survives_close,
                a_closed_handle_fails_cleanly, a_store_says_what_it_is, a_broken_place_gives_errors, backup,
            }
            history {
                all_versions_are_kept, the_newest_are_kept, history_outlives_the_record, history_of_batches,
                without_history_it_is_refused, history_can_be_switched_on,
            }
            names {
                odd_keys, keys_that_differ_in_case, long_keys, integer_keys, odd_tables_and_columns, odd_fields, odd_values,
            }
            numbers {
                integers_are_exact, reals_are_exact, numbers_take_the_columns_kind, integers_and_reals_compare_by_value,
                json_keeps_the_kind_of_numbers,
            }
            order {
                by_key_without_an_order, integer_keys_sort_by_value, two_part_keys_sort_by_both,
                by_columns_with_nulls_and_ties, every_ordered_type_sorts, bad_orders_are_refused,
            }
            paging {
                pages_hold_the_limit, pages_are_complete_and_disjoint, paging_while_others_write,
                a_token_outlives_its_record, pages_cut_through_ties_and_nulls, bad_pages_are_refused,
                count_ignores_order_limit_and_token,
            }
            schema {
                create_is_idempotent, letter_case_does_not_distinguish_tables, tables_come_back_as_created,
                drop_table_removes_everything, defaults_are_filled_in, records_must_fit_the_schema, add_column,
                add_column_takes_in_undeclared_fields, drop_column, rename_column, undeclared_fields_can_be_forbidden,
                other_stores_see_changes,
            }
            stale {
                a_stale_read_answers_a_state_that_there_was, what_writes_is_never_stale,
            }
            unique {
                a_taken_value_is_refused, missing_values_are_not_equal, a_unique_index_is_about_all_its_columns,
                a_value_becomes_free, values_within_a_batch, one_of_many_gets_the_value,
                uniqueness_can_be_added_where_it_holds,
            }
            values {
                every_type_comes_back, an_empty_record, json_nulls, large_records, deep_json, many_fields,
            }
        }
    };
}

/// Makes a test of every transaction case: a module `transactions`.
///
/// Takes an expression that makes a [`Harness`](crate::Harness); it is evaluated for each test.
#[macro_export]
macro_rules! test_transactions {
    ($harness:expr) => {
        $crate::__suite! { $harness; transactions;
            bank {
                the_sum_holds_at_every_read, only_one_takes_the_last,
            }
            isolation {
                a_transaction_reads_its_own_writes, a_lost_update_is_a_conflict, coming_and_going_is_a_conflict,
                write_skew_is_caught, reads_alone_are_checked, a_conflict_runs_the_closure_again, counters_lose_nothing,
                inserts_expect_absence,
            }
            outbox {
                a_batch_sends_its_messages, a_batch_of_messages_alone, a_failed_batch_sends_nothing,
                a_missing_queue_fails_the_batch, enqueued_messages_keep_their_options, a_message_arrives_with_its_records,
                a_transactions_messages_go_with_its_commit,
            }
            rollback {
                dropped_is_rolled_back, an_error_of_the_closure_rolls_back, a_cancelled_transaction_leaves_nothing,
                a_committed_transaction_is_over, a_taken_unique_value_rolls_back,
            }
            schedulers {
                two_schedulers_fire_each_tick_once,
            }
        }
    };
}

/// Makes a test of every queue case: a module `queues`.
///
/// Takes an expression that makes a [`Harness`](crate::Harness); it is evaluated for each test.
#[macro_export]
macro_rules! test_queues {
    ($harness:expr) => {
        $crate::__suite! { $harness; queues;
            admin {
                create_is_idempotent, queues_are_listed_by_name, delete_queue_removes_everything,
                missing_queues_are_not_found, stats_follow_the_messages, purge_removes_all, queues_are_apart,
            }
            consumer {
                two_consumers_share_a_thousand_messages, failures_are_tried_again, hopeless_messages_become_dead_letters,
                a_shutdown_gives_back_what_it_has_not_begun, a_consumer_waits_for_messages, bad_consumers_are_refused,
                dead_letters_can_be_consumed,
            }
            content {
                bodies_are_bytes, large_bodies, attributes_come_back, messages_say_what_they_are, a_call_sends_all_or_none,
                many_messages_in_one_call, typed_queues,
            }
            dead_letter {
                the_delivery_cap_makes_dead_letters, a_cap_needs_dead_letters, giving_back_uses_up_deliveries,
                the_last_delivery_can_succeed,
                without_a_cap_nothing_dies, a_message_can_be_rejected, the_receipt_of_a_dead_letter_is_stale,
                redrive_sends_home, redrive_takes_the_oldest_first, dead_letters_can_be_received,
                the_companion_comes_and_goes_with_its_queue, purge_leaves_dead_letters,
            }
            dedup {
                a_duplicate_is_not_sent, an_id_outlives_its_message, the_window_ends, ids_are_of_one_queue,
                duplicates_within_one_call, one_of_many_is_sent,
            }
            delay {
                a_delayed_message_comes_later, a_delayed_message_is_in_nobodys_way, messages_come_as_they_become_due,
            }
            handles {
                a_second_handle_shares_the_queue, messages_survive_close, closing_ends_waiting_receives,
                a_broken_place_gives_errors,
            }
            lease {
                a_leased_message_is_out_of_sight, a_message_comes_back_when_its_lease_ends,
                leased_until_is_the_end_of_the_lease, a_deleted_message_is_gone, deleting_what_is_gone_is_fine,
                a_stale_receipt_is_refused, deletes_are_each_on_their_own, a_late_delete_deletes_or_is_refused,
                foreign_receipts_do_nothing, a_killed_consumers_messages_come_back,
            }
            order {
                first_in_first_out, higher_priorities_come_first, a_peek_changes_nothing,
            }
            receive {
                a_receive_takes_at_most_max, an_empty_receive_waits, a_waiting_receive_gets_what_is_sent,
                a_waiting_receive_gets_what_becomes_due, waiting_receives_share, a_cancelled_receive_loses_nothing,
                no_message_goes_to_two,
            }
            renewal {
                leases_are_renewed_while_a_handler_runs, a_consumer_that_can_not_renew_stops,
            }
            ttl {
                an_expired_message_is_a_dead_letter, a_message_is_there_until_it_expires, a_lease_outlives_the_time_to_live,
                a_delay_counts_within_the_time_to_live,
            }
            update {
                a_renewed_lease_lasts_longer, a_lease_can_be_made_shorter, zero_visibility_gives_back_at_once,
                a_message_given_back_with_a_delay, every_update_makes_a_new_receipt, body_and_attributes_can_be_changed,
                bad_updates_are_refused,
            }
        }
    };
}

/// Makes a test of every blob case: a module `blobs`.
///
/// Takes an expression that makes a [`Harness`](crate::Harness); it is evaluated for each test.
#[macro_export]
macro_rules! test_blobs {
    ($harness:expr) => {
        $crate::__suite! { $harness; blobs;
            attributes {
                attributes_come_back, a_put_replaces_the_attributes, a_refused_put_changes_no_attribute,
                bad_attributes_are_refused, text_and_json,
            }
            conditional {
                create_only, guarded_puts, conditions_are_decided_at_the_end, one_of_many_creators_succeeds,
                guarded_updates_lose_nothing, marks_are_not_used_twice, conditional_reads, conditional_deletes,
            }
            copy {
                a_copy_is_a_blob_of_its_own, copies_have_modes, a_copy_onto_itself, a_rename_moves,
            }
            get {
                ranges, a_suffix_longer_than_the_blob, ranges_of_zero_length, bad_ranges_are_refused,
                a_read_describes_the_whole_blob, ranges_of_a_large_blob, missing_blobs_are_not_found,
                a_read_is_of_one_state,
            }
            handles {
                a_second_handle_sees_the_firsts_blobs, blobs_survive_close, create_container_is_idempotent,
                a_closed_handle_fails_cleanly, a_broken_place_gives_errors,
            }
            list {
                all_in_bytewise_order, below_a_prefix, one_level, start_after, a_listing_goes_on_behind_any_entry,
                many_blobs, what_is_gone_does_not_show, listing_while_others_write, a_store_with_a_prefix,
            }
            names {
                odd_paths, paths_that_differ_in_case, long_paths, every_blob_has_an_address, engines_are_told_or_refused,
                signed_urls,
            }
            put {
                put_then_get, empty_blobs, large_blobs, a_put_replaces, a_stream_that_fails_writes_nothing,
                a_stream_of_another_length_is_refused, a_cancelled_put_writes_nothing, a_blob_that_is_too_large_is_refused,
                head_agrees_with_the_put, a_delete_says_whether_there_was_one, blobs_and_folders_change_places,
                a_put_without_options_overwrites,
            }
        }
    };
}

/// Makes a test of every cache case: a module `caches`.
///
/// Takes an expression that makes a [`CacheHarness`](crate::caches::CacheHarness); it is evaluated for each test.
#[macro_export]
macro_rules! test_caches {
    ($harness:expr) => {
        $crate::__suite! { $harness; caches by run_caches;
            handles {
                values_survive_close, a_closed_cache_fails_cleanly, a_cache_says_what_it_is,
            }
            order {
                reads_never_go_back, a_dropped_call_does_not_come_late, concurrent_sets_end_with_one,
            }
            stats {
                reads_are_hits_or_misses, what_goes_is_counted_by_cause, what_is_there_is_counted,
            }
            time {
                a_value_goes_when_its_time_is_over, a_set_begins_a_new_time, reads_do_not_prolong_the_time_to_live,
                no_time_at_all, a_very_long_time, a_value_goes_when_it_is_not_used,
            }
            values {
                a_value_comes_back, a_set_replaces, a_remove_says_whether_there_was_one, a_clear_removes_all,
                values_are_bytes, odd_keys, the_time_of_a_refresh_comes_back,
            }
        }
    };
}

/// What the suites' macros expand to.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite {
    ($harness:expr; $suite:ident; $($cases:tt)*) => {
        $crate::__suite! { $harness; $suite by run; $($cases)* }
    };
    ($harness:expr; $suite:ident by $run:ident; $($theme:ident { $($case:ident),* $(,)? })*) => {
        mod $suite {
            #[allow(unused_imports, reason = "the harness expression may name anything of the test file")]
            use super::*;
            $($(
                #[test]
                fn $case() {
                    $crate::$run(
                        concat!(stringify!($suite), "::", stringify!($case)),
                        $crate::$suite::$theme::FLAVOR,
                        &$harness,
                        |harness| Box::pin($crate::$suite::$theme::$case(harness)),
                    );
                }
            )*)*
        }
    };
}
