use storage_core::Entity;

#[derive(Entity)]
#[entity(table = "jobs", index(name = "by_status", columns("statsu", "id")))]
struct Unknown {
    #[entity(key)]
    id: String,
    status: String,
}

#[derive(Entity)]
#[entity(table = "jobs", index(name = "by_status", columns("id")))]
struct Twice {
    #[entity(key)]
    id: String,
    #[entity(index)]
    status: String,
}

#[derive(Entity)]
#[entity(table = "jobs", index(columns("id")))]
struct Nameless {
    #[entity(key)]
    id: String,
}

#[derive(Entity)]
#[entity(table = "jobs", unique_index(name = "by_nothing", columns()))]
struct Empty {
    #[entity(key)]
    id: String,
}

fn main() {}
