//! Real processes in bad circumstances.

mod refuse;
