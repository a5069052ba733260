use storage_core::Entity;

#[derive(Entity)]
#[entity(table = "jobs")]
struct Job {
    #[entity(key, unique)]
    id: String,
    #[entity(skip, default = 1)]
    cached: i64,
    #[entity(version, key)]
    both: i64,
    #[entity(json, index)]
    tags: Vec<String>,
    #[entity(default = 1, default = 2)]
    twice: i64,
}

#[derive(Entity)]
#[entity(table = "jobs")]
struct Indexed {
    #[entity(key)]
    id: String,
    #[entity(json, unique)]
    tags: Vec<String>,
}

fn main() {}
