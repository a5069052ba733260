use storage_core::Entity;

#[derive(Entity)]
#[entity(table = "jobs")]
struct Number {
    #[entity(key)]
    id: String,
    #[entity(version)]
    version: u64,
}

struct Mine;

#[derive(Entity)]
#[entity(table = "jobs")]
struct Other {
    #[entity(key)]
    id: String,
    #[entity(version)]
    version: Mine,
}

fn main() {}
