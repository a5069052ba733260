use storage_core::Entity;

#[derive(Entity)]
#[entity(table = "jobs")]
struct Missing {
    #[entity(key)]
    id: Option<String>,
}

#[derive(Entity)]
#[entity(table = "jobs")]
struct Real {
    #[entity(key)]
    id: f64,
}

fn main() {}
