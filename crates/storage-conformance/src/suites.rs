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
            crud {
                put_then_get, get_many_keeps_the_order_of_the_keys, a_put_replaces_the_whole_record,
                a_merge_changes_some_fields, a_merge_of_nothing_is_not_found, versions_grow_by_one_with_every_write,
                a_delete_says_whether_there_was_one, an_insert_expects_absence, present_is_checked, versions_are_checked,
                a_check_only_checks, updated_at_is_the_time_of_the_write, keys_of_two_parts, tables_are_apart,
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
        }
    };
}

/// What the suites' macros expand to.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite {
    ($harness:expr; $suite:ident; $($theme:ident { $($case:ident),* $(,)? })*) => {
        mod $suite {
            #[allow(unused_imports, reason = "the harness expression may name anything of the test file")]
            use super::*;
            $($(
                #[test]
                fn $case() {
                    $crate::run(
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
