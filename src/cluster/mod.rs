//! What is agreed: groups, their log and their peers. The only room that names openraft.

pub mod mesh;
