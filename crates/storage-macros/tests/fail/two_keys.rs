use storage_core::Entity;

#[derive(Entity)]
#[entity(table = "jobs")]
struct Job {
    #[entity(key)]
    tenant: String,
    #[entity(key)]
    id: String,
}

fn main() {}
