mod caps;
mod fairness;
mod scale;
mod shares;
mod sim;
mod upstreams;
