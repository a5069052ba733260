//! Pages: keyset pages, stable while others write.

use std::collections::BTreeSet;

use serde_json::json;
use storage_core::{ColumnType, ErrorKind, Filter, Query};

use super::table::{Table, open_schema};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

async fn numbered(h: &dyn Harness, count: usize) -> storage_core::Result<Table<'_>> {
    let t = Table::new(h, open_schema().column("n", ColumnType::Integer).index("by_n", ["n"])).await?;
    t.put_all((0..count).map(|n| (format!("k{n:04}"), json!({"n": n, "third": n / 3})))).await?;
    Ok(t)
}

/// A page holds as many records as the limit says; the last one has no token, or one whose page is empty.
pub async fn pages_hold_the_limit(h: &dyn Harness) -> CaseResult {
    let t = numbered(h, 10).await?;
    for limit in [1, 3, 5, 9, 10, 11, 1000] {
        let (mut query, mut seen, mut pages) = (t.query().limit(limit), 0, 0);
        loop {
            let page = t.store.scan(&query).await?;
            assert!(page.records.len() <= limit as usize);
            assert!(page.next.is_none() || page.records.len() == limit as usize, "a page that is not full, but not the last");
            seen += page.records.len();
            pages += 1;
            let Some(next) = page.next else { break };
            query = query.after(Some(next));
        }
        assert_eq!(seen, 10, "limit {limit}");
        assert!(pages <= 10 / limit as usize + 1, "{pages} pages of {limit}");
    }
    Ok(())
}

/// All pages together are all records, once each, in order, with filter and order, for every page size.
pub async fn pages_are_complete_and_disjoint(h: &dyn Harness) -> CaseResult {
    let t = numbered(h, 25).await?;
    let queries = [
        t.query(),
        t.query().filter(Filter::ge("n", 5)? & Filter::ne("n", 7)?),
        t.query().descending("n")?,
        t.query().filter(Filter::lt("third", 5)?).descending("n")?.ascending("id")?,
    ];
    let limits: &[u32] = if h.few_queries() { &[7, 24, 25] } else { &[1, 2, 7, 24, 25] };
    for query in queries {
        let whole = t.keys(query.clone().limit(1000)).await?;
        assert!(whole.len() > 10);
        for limit in limits {
            assert_eq!(t.keys(query.clone().limit(*limit)).await?, whole, "{query:?} in pages of {limit}");
        }
    }
    Ok(())
}

/// Many records are paged while another writer inserts and deletes behind and ahead of the cursor: each record that was there all the time is
/// seen exactly once, in order, and none twice.
pub async fn paging_while_others_write(h: &dyn Harness) -> CaseResult {
    let (count, limit): (u16, u32) = if h.few_queries() { (105, 10) } else { (1_025, 50) };
    for by_column in [false, true] {
        let t = numbered(h, count.into()).await?;
        let order = |query: Query| if by_column { query.ascending("n") } else { Ok(query) };
        let (mut query, mut seen, mut round) = (order(t.query().limit(limit))?, Vec::new(), 0);
        let mut deleted = BTreeSet::new();
        loop {
            let page = t.store.scan(&query).await?;
            seen.extend(page.records.iter().map(|r| r.key.to_string()));
            let Some(next) = page.next else { break };
            query = query.after(Some(next));
            let last = seen.len() - 1;
            // Behind: new ones before everything, and the removal of what was seen, the cursor's own record among it.
            t.put(format!("a{round:04}"), json!({"n": -1 - round})).await?;
            t.delete(seen[last].as_str()).await?;
            t.delete(seen[last / 2].as_str()).await?;
            // Ahead: new ones at the end, and the removal of what was not seen yet.
            t.put(format!("z{round:04}"), json!({"n": 5_000 + round})).await?;
            let ahead = format!("k{:04}", i64::from(count) - 1 - round);
            if !seen.contains(&ahead) {
                t.delete(ahead.as_str()).await?;
                deleted.insert(ahead);
            }
            round += 1;
            assert!(round < 100, "paging does not come to an end");
        }
        let unique: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(unique.len(), seen.len(), "a record was seen twice");
        assert!(seen.is_sorted(), "out of order");
        let there_all_the_time: Vec<String> =
            (0..count).map(|n| format!("k{n:04}")).filter(|key| !deleted.contains(key)).collect();
        let missed: Vec<_> = there_all_the_time.iter().filter(|key| !unique.contains(key)).collect();
        assert!(missed.is_empty(), "never seen, though they were there all the time: {missed:?}");
        assert!(!seen.iter().any(|key| key.starts_with('a')), "what was inserted behind the cursor was seen");
        assert!(seen.iter().all(|key| !deleted.contains(key)), "what was deleted ahead of the cursor was seen");
    }
    Ok(())
}

/// A token stays good when the record that it was made from is gone, and can be kept as text.
pub async fn a_token_outlives_its_record(h: &dyn Harness) -> CaseResult {
    let t = numbered(h, 6).await?;
    for query in [t.query().limit(3), t.query().limit(3).ascending("n")?] {
        let page = t.store.scan(&query).await?;
        let text = page.next.expect("a second page").to_string();
        let last = page.records[2].key.to_string();
        let fields = t.value(last.as_str()).await?;
        t.delete(last.as_str()).await?;
        let rest = query.clone().after(Some(text.parse()?));
        assert_eq!(t.keys(rest).await?, ["k0003", "k0004", "k0005"]);
        t.put(last.as_str(), fields).await?;
    }
    Ok(())
}

/// The order's columns may have nulls and the same value many times: pages cut through them without loss.
pub async fn pages_cut_through_ties_and_nulls(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, open_schema().column("c", ColumnType::Text).column("r", ColumnType::Real)).await?;
    let value = |n: usize| match n % 4 {
        0 => json!({}),
        1 => json!({"c": "same"}),
        2 => json!({"c": "same", "r": 0.1}),
        _ => json!({"r": 0.1}),
    };
    t.put_all((0..40).map(|n| (format!("{n:02}"), value(n)))).await?;
    let limits: &[u32] = if h.few_queries() { &[3, 10] } else { &[1, 3, 10] };
    for query in [t.query().ascending("c")?.descending("r")?, t.query().descending("c")?.ascending("r")?] {
        let whole = t.keys(query.clone().limit(100)).await?;
        assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), 40);
        for limit in limits {
            assert_eq!(t.keys(query.clone().limit(*limit)).await?, whole, "{:?} in pages of {limit}", query.order);
        }
    }
    Ok(())
}

/// Tokens of other queries, damaged ones and limits out of bounds are refused.
pub async fn bad_pages_are_refused(h: &dyn Harness) -> CaseResult {
    let t = numbered(h, 5).await?;
    let token = t.store.scan(&t.query().limit(2)).await?.next;
    assert!(token.is_some());
    let mut bad = vec![t.query().limit(0), t.query().limit(storage_core::MAX_PAGE + 1)];
    bad.push(t.query().limit(2).ascending("n")?.after(token.clone()));
    bad.push(t.query().limit(2).filter(Filter::eq("n", 1)?).after(token));
    for text in ["", "x", "AAAA", "e30", "' or 1=1 --"] {
        bad.push(t.query().after(Some(text.parse()?)));
    }
    for query in bad {
        refused(ErrorKind::InvalidInput, t.store.scan(&query).await);
    }
    Ok(())
}

/// `count` counts all that match, whatever order, limit and token say.
pub async fn count_ignores_order_limit_and_token(h: &dyn Harness) -> CaseResult {
    let t = numbered(h, 12).await?;
    let query = t.query().filter(Filter::ge("n", 2)?).limit(3);
    let token = t.store.scan(&query).await?.next;
    assert_eq!(t.store.count(&query).await?, 10);
    assert_eq!(t.store.count(&query.clone().after(token)).await?, 10);
    assert_eq!(t.store.count(&query.descending("n")?).await?, 10);
    assert_eq!(t.store.count(&t.query().filter(Filter::Or(vec![]))).await?, 0);
    Ok(())
}
