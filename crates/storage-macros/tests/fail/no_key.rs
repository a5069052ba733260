use storage_core::Entity;

#[derive(Entity)]
#[entity(table = "jobs")]
struct Job {
    id: String,
}

fn main() {}
