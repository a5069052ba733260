use storage_core::Entity;

#[derive(Entity)]
struct Job {
    #[entity(key)]
    id: String,
}

fn main() {}
