//! What a backend hands to the suites.

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use storage_core::{Backends, Driver, DriverConfig, Result, ResultExt as _};

/// What no other process of this machine is called, in small letters and digits: its number, and when it first asked. The number alone comes again: there are
/// few, and a run of all tests takes as many processes.
pub fn process_mark() -> &'static str {
    static MARK: LazyLock<String> = LazyLock::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Twelve days.
        format!("{}x{:x}", std::process::id(), now % (1 << 20))
    });
    &MARK
}

/// How the suites open a backend's stores.
///
/// Most backends have a [`Driver`] and use [`DriverHarness`]; others implement this themselves.
#[async_trait]
pub trait Harness: Send + Sync {
    /// Why no case can run here (no server, no tool); `None` where they can. All cases are then [skipped](crate::skip).
    async fn unavailable(&self) -> Option<String> {
        None
    }

    /// Makes an empty place for a store, which nobody else uses: a folder, a database, a container.
    async fn place(&self) -> Result<Place>;

    /// Opens the store at a place. Called again for the same place, it opens a second handle on the same data.
    async fn open(&self, config: &DriverConfig) -> Result<Backends>;

    /// True where the clock of [`DriverConfig`] governs expiry, delays and leases, so that a case may move it by hand.
    fn takes_manual_clock(&self) -> bool {
        false
    }

    /// True where the data is still there after all handles on it were closed.
    fn survives_close(&self) -> bool {
        true
    }

    /// Characters that blob paths can't have here, since the service behind the backend turns them into others: the backend must refuse them.
    fn refused_in_paths(&self) -> &str {
        ""
    }

    /// True where a query takes a request to a server for each record that it looks at: cases that ask for each of many values ask for some of them.
    fn few_queries(&self) -> bool {
        false
    }

    /// True where reads that may be stale are answered by a replica, which may be behind.
    fn lags(&self) -> bool {
        false
    }

    /// A place that can't be reached or can't be used: a closed port, a missing folder, wrong credentials.
    async fn broken_place(&self) -> Result<Option<Place>> {
        Ok(None)
    }
}

/// Where a store is. Cleans up when it is dropped.
pub struct Place {
    /// What to open it with.
    pub config: DriverConfig,
    guard: Option<Box<dyn Any + Send + Sync>>,
}

impl Place {
    /// The place at a URL, with options in its query part.
    #[must_use]
    pub fn url(url: &str) -> Self {
        Self { config: DriverConfig::from_url(url), guard: None }
    }

    /// `prefix` with something behind it that no other place of this machine has.
    #[must_use]
    pub fn unique_name(prefix: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self::url(&format!("{prefix}c{}x{}", process_mark(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// A place in a temporary folder, which is removed with it. `url` makes the URL out of the folder's path.
    ///
    /// # Errors
    /// Where the folder can't be made.
    pub fn in_folder(url: impl FnOnce(&Path) -> String) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("storage-conformance-").tempdir();
        let folder = folder.context("conformance.place", || "a temporary folder".into())?;
        Ok(Self::url(&url(folder.path())).with_guard(folder))
    }

    /// Keeps `guard` as long as the place; dropping it should clean up.
    #[must_use]
    pub fn with_guard(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guard = Some(match self.guard.take() {
            Some(inner) => Box::new((guard, inner)),
            None => Box::new(guard),
        });
        self
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("config", &self.config).field("guarded", &self.guard.is_some()).finish()
    }
}

type MakePlace = Box<dyn Fn() -> Result<Place> + Send + Sync>;

/// The harness of a backend that has a [`Driver`].
pub struct DriverHarness<D> {
    driver: D,
    place: MakePlace,
    broken: Option<MakePlace>,
    unavailable: Option<String>,
    manual_clock: bool,
    survives_close: bool,
    refused_in_paths: &'static str,
    few_queries: bool,
    lags: bool,
}

impl<D: Driver> DriverHarness<D> {
    /// A harness that opens, with `driver`, the fresh and empty places that `place` makes.
    pub fn new(driver: D, place: impl Fn() -> Result<Place> + Send + Sync + 'static) -> Self {
        Self {
            driver,
            place: Box::new(place),
            broken: None,
            unavailable: None,
            manual_clock: false,
            survives_close: true,
            refused_in_paths: "",
            few_queries: false,
            lags: false,
        }
    }

    /// See [`Harness::broken_place`].
    #[must_use]
    pub fn broken(mut self, place: impl Fn() -> Result<Place> + Send + Sync + 'static) -> Self {
        self.broken = Some(Box::new(place));
        self
    }

    /// See [`Harness::takes_manual_clock`].
    #[must_use]
    pub fn manual_clock(mut self) -> Self {
        self.manual_clock = true;
        self
    }

    /// Says that the data ends with the last handle on it. See [`Harness::survives_close`].
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.survives_close = false;
        self
    }

    /// See [`Harness::refused_in_paths`].
    #[must_use]
    pub fn refused_in_paths(mut self, characters: &'static str) -> Self {
        self.refused_in_paths = characters;
        self
    }

    /// See [`Harness::few_queries`].
    #[must_use]
    pub fn few_queries(mut self) -> Self {
        self.few_queries = true;
        self
    }

    /// See [`Harness::lags`].
    #[must_use]
    pub fn lagging(mut self) -> Self {
        self.lags = true;
        self
    }

    /// See [`Harness::unavailable`].
    #[must_use]
    pub fn unavailable(mut self, reason: Option<String>) -> Self {
        self.unavailable = reason;
        self
    }
}

impl<D: Driver> fmt::Debug for DriverHarness<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverHarness").field("driver", &self.driver).finish_non_exhaustive()
    }
}

#[async_trait]
impl<D: Driver> Harness for DriverHarness<D> {
    async fn unavailable(&self) -> Option<String> {
        self.unavailable.clone()
    }

    async fn place(&self) -> Result<Place> {
        (self.place)()
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        self.driver.check_options(config)?;
        self.driver.open(config).await
    }

    fn takes_manual_clock(&self) -> bool {
        self.manual_clock
    }

    fn survives_close(&self) -> bool {
        self.survives_close
    }

    fn refused_in_paths(&self) -> &str {
        self.refused_in_paths
    }

    fn few_queries(&self) -> bool {
        self.few_queries
    }

    fn lags(&self) -> bool {
        self.lags
    }

    async fn broken_place(&self) -> Result<Option<Place>> {
        self.broken.as_ref().map(|broken| broken()).transpose()
    }
}

/// Another harness, with a layer in front of everything that it opens: a layer must not change what the suites see.
pub struct LayeredHarness<H, F> {
    inner: H,
    layer: F,
}

impl<H, F> LayeredHarness<H, F>
where
    H: Harness,
    F: Fn(Backends, &DriverConfig) -> Result<Backends> + Send + Sync,
{
    /// What `inner` opens, as `layer` makes it.
    pub fn new(inner: H, layer: F) -> Self {
        Self { inner, layer }
    }
}

impl<H: fmt::Debug, F> fmt::Debug for LayeredHarness<H, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayeredHarness").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl<H, F> Harness for LayeredHarness<H, F>
where
    H: Harness,
    F: Fn(Backends, &DriverConfig) -> Result<Backends> + Send + Sync,
{
    async fn unavailable(&self) -> Option<String> {
        self.inner.unavailable().await
    }

    async fn place(&self) -> Result<Place> {
        self.inner.place().await
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        (self.layer)(self.inner.open(config).await?, config)
    }

    fn takes_manual_clock(&self) -> bool {
        self.inner.takes_manual_clock()
    }

    fn survives_close(&self) -> bool {
        self.inner.survives_close()
    }

    fn refused_in_paths(&self) -> &str {
        self.inner.refused_in_paths()
    }

    fn few_queries(&self) -> bool {
        self.inner.few_queries()
    }

    fn lags(&self) -> bool {
        self.inner.lags()
    }

    async fn broken_place(&self) -> Result<Option<Place>> {
        self.inner.broken_place().await
    }
}
