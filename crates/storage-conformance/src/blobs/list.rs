//! Listings.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use storage_core::{BlobEntry, BlobPath, ListOptions};

use super::fixture::{Fixture, path};
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// Paths with characters that sort before `/` (` `, `!`, `-`, `.`), right behind it (`0`) and far behind, in bytewise order.
const TREE: [&str; 14] =
    ["a", "a!", "a!/x", "a-b", "a-b/c", "a.txt", "a/b", "a/b.txt", "a/b/c", "a/b/c.d/e", "a/bc", "a0", "a0/x", "b/a/a"];

/// The paths of [`TREE`], of which a container may refuse those below a path that is a blob itself.
async fn tree(h: &dyn Harness) -> storage_core::Result<(Fixture<'_>, Vec<&'static str>)> {
    let b = Fixture::open(h).await?;
    let mut kept = Vec::new();
    for at in TREE.into_iter().rev() {
        match b.put(at, at).await {
            Ok(_) => kept.push(at),
            Err(error) => assert!(
                TREE.iter().any(|other| other.starts_with(&format!("{at}/")) || at.starts_with(&format!("{other}/"))),
                "{error}"
            ),
        }
    }
    kept.sort_unstable();
    assert!(kept.len() >= 8, "{kept:?}");
    Ok((b, kept))
}

/// What a listing must be: computed from the paths.
fn expected(paths: &[&str], options: &ListOptions) -> Vec<String> {
    let prefix = options.prefix.as_ref().map_or_else(String::new, |prefix| format!("{prefix}/"));
    let shown = paths.iter().filter_map(|at| {
        let rest = at.strip_prefix(&prefix)?;
        match rest.find('/').filter(|_| options.one_level) {
            Some(slash) => Some(format!("{prefix}{}/", &rest[..slash])),
            None => Some((*at).to_owned()),
        }
    });
    let shown: BTreeSet<String> = shown.collect();
    let behind = |entry: &String| options.start_after.as_ref().is_none_or(|after| entry > after);
    shown.into_iter().filter(behind).collect()
}

/// All blobs come in bytewise order of their paths, whatever folders they are in.
pub async fn all_in_bytewise_order(h: &dyn Harness) -> CaseResult {
    let (b, kept) = tree(h).await?;
    assert_eq!(b.all().await?, kept);
    let metas: Vec<_> = b.store.list_all(None).try_collect().await?;
    for meta in metas {
        assert_eq!(meta.size, meta.path.as_str().len() as u64);
        let head = b.store.head(&meta.path).await?;
        assert_eq!((meta.etag, meta.size), (head.etag, head.size), "a listing says what `head` says");
    }
    Ok(())
}

/// A prefix means whole segments: `a` lists what is below `a/`, neither `a` itself nor `ab`.
pub async fn below_a_prefix(h: &dyn Harness) -> CaseResult {
    let (b, kept) = tree(h).await?;
    for prefix in
        ["a", "a/b", "a/b/c", "a!", "a-b", "b", "b/a", "b/a/a", "nothing", "a/"].into_iter().filter_map(|p| BlobPath::new(p).ok())
    {
        let options = ListOptions::below(Some(prefix.clone()));
        assert_eq!(b.listed(options.clone()).await?, expected(&kept, &options), "below {prefix}");
    }
    Ok(())
}

/// One level: blobs and prefixes together, in order of their sort keys (a prefix sorts with a slash at its end), each prefix once.
pub async fn one_level(h: &dyn Harness) -> CaseResult {
    let (b, kept) = tree(h).await?;
    for prefix in [None, Some("a"), Some("a/b"), Some("a!"), Some("b"), Some("nothing")] {
        let options = ListOptions::below(prefix.map(path)).one_level();
        let found = b.listed(options.clone()).await?;
        assert_eq!(found, expected(&kept, &options), "the level below {prefix:?}");
        let entries: Vec<BlobEntry> = b.store.list(&options).try_collect().await?;
        for entry in entries {
            match entry {
                BlobEntry::Blob(meta) => assert!(kept.contains(&meta.path.as_str())),
                BlobEntry::Prefix(at) => assert!(kept.iter().any(|k| k.starts_with(&format!("{at}/"))), "nothing below {at}"),
            }
        }
    }
    Ok(())
}

/// `start_after` starts behind a path, whether there is such a blob or not, at every place, for every kind of listing.
pub async fn start_after(h: &dyn Harness) -> CaseResult {
    let (b, kept) = tree(h).await?;
    let others = ["A", "a ", "a.", "a/", "a!/", "a/a", "a/b/", "a/b/c/", "a/zzz", "a1", "b", "b/", "zzz", "zzz/"];
    for start in TREE.into_iter().chain(others) {
        for prefix in [None, Some("a"), Some("a/b")] {
            for one_level in [false, true] {
                let options = ListOptions { prefix: prefix.map(path), one_level, start_after: Some(start.to_owned()) };
                assert_eq!(b.listed(options.clone()).await?, expected(&kept, &options), "{options:?}");
            }
        }
    }
    Ok(())
}

/// A listing can be broken off behind any entry, blob or prefix, and goes on there by the entry's sort key: nothing twice, nothing left out.
pub async fn a_listing_goes_on_behind_any_entry(h: &dyn Harness) -> CaseResult {
    let (b, kept) = tree(h).await?;
    let tenant = b.store.with_prefix(&path("a"))?;
    for options in [ListOptions::default(), ListOptions::default().one_level()] {
        for store in [&b.store, &tenant] {
            let whole: Vec<BlobEntry> = store.list(&options).try_collect().await?;
            assert!(!whole.is_empty(), "{kept:?}");
            for (n, entry) in whole.iter().enumerate() {
                let rest = options.clone().start_after(entry.sort_key());
                let rest: Vec<BlobEntry> = store.list(&rest).try_collect().await?;
                assert_eq!(rest, whole[n + 1..], "behind {}", entry.sort_key());
            }
        }
    }
    Ok(())
}

/// More blobs than one page of any service, all of them once, also from the middle and on one level.
pub async fn many_blobs(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let paths: Vec<String> = (0..1_100).map(|n| format!("d{}/{n:04}", n % 3)).collect();
    for some in paths.chunks(50) {
        let puts = some.iter().map(|at| b.put(at, ""));
        futures::future::try_join_all(puts).await?;
    }
    let mut sorted: Vec<&str> = paths.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    assert!(b.all().await? == sorted, "not all of them, or not in order");
    let options = ListOptions::below(Some(path("d1"))).start_after(path("d1/0550"));
    assert_eq!(b.listed(options.clone()).await?, expected(&sorted, &options));
    assert_eq!(b.listed(ListOptions::default().one_level()).await?, ["d0/", "d1/", "d2/"]);
    Ok(())
}

/// An empty container lists nothing, and what was deleted shows no more, nor do folders that became empty.
pub async fn what_is_gone_does_not_show(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    for options in [ListOptions::default(), ListOptions::default().one_level(), ListOptions::below(Some(path("x")))] {
        assert!(b.listed(options).await?.is_empty());
    }
    b.put("a/b/c", "x").await?;
    b.put("d", "x").await?;
    b.store.delete(&path("a/b/c")).await?;
    assert_eq!(b.all().await?, ["d"]);
    assert_eq!(b.listed(ListOptions::default().one_level()).await?, ["d"]);
    assert!(b.listed(ListOptions::below(Some(path("a"))).one_level()).await?.is_empty());
    Ok(())
}

/// Blobs written and removed while a listing runs don't break it: what was there all the time is listed once, in order.
pub async fn listing_while_others_write(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    for n in 0..60 {
        b.put(&format!("k{n:02}"), "").await?;
    }
    let mut seen = Vec::new();
    let mut entries = b.store.list(&ListOptions::default());
    while let Some(entry) = entries.try_next().await? {
        let n = seen.len();
        seen.push(entry.sort_key());
        b.put(&format!("a{n:02}"), "").await?;
        b.put(&format!("z{n:02}"), "").await?;
        b.store.delete(&path(&format!("k{:02}", 59 - n.min(19)))).await?;
        assert!(n < 300, "the listing does not end");
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "listed twice");
    for n in 0..40 {
        assert!(seen.contains(&format!("k{n:02}")), "k{n:02} was there all the time");
    }
    Ok(())
}

/// A store with a prefix sees what is below it alone, under paths without it, and can't leave it.
pub async fn a_store_with_a_prefix(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let inner = b.store.with_prefix(&path("tenant/one"))?;
    b.put("tenant/one/a", "1").await?;
    b.put("tenant/onerous", "2").await?;
    b.put("other", "3").await?;
    inner.put(&path("b/c"), "4").await?;
    assert_eq!(b.text("tenant/one/b/c").await?, "4");
    let entries: Vec<BlobEntry> = inner.list(&ListOptions::default().one_level()).try_collect().await?;
    assert_eq!(entries.iter().map(BlobEntry::sort_key).collect::<Vec<_>>(), ["a", "b/"]);
    let after: Vec<BlobEntry> = inner.list(&ListOptions::default().start_after(path("a"))).try_collect().await?;
    assert_eq!(after.iter().map(BlobEntry::sort_key).collect::<Vec<_>>(), ["b/c"]);
    assert_eq!(inner.head(&path("a")).await?.path, path("a"));
    assert!(!inner.exists(&path("other")).await?);
    assert!(inner.delete(&path("a")).await?);
    assert_eq!(b.all().await?, ["other", "tenant/one/b/c", "tenant/onerous"]);
    Ok(())
}
