//! A virtual fleet in virtual time: pods that obey directives late, or not at all, under managers that come and go. The planner's
//! own check runs after every tick.

mod balance;
mod caps;
mod fleet;
mod scale;
