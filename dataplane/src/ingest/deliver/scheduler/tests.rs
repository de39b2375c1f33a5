mod caps;
mod fairness;
mod scale;
mod sim;
mod upstreams;
