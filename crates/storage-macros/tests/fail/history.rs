use storage_core::Entity;

#[derive(Entity)]
#[entity(table = "jobs", history = 0)]
struct None {
    #[entity(key)]
    id: String,
}

#[derive(Entity)]
#[entity(table = "jobs", history = "some")]
struct Some {
    #[entity(key)]
    id: String,
}

fn main() {}
