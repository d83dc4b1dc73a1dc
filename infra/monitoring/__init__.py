"""Prometheus, Alertmanager and Grafana as text: scrape jobs, rules, routes and dashboards (pure rendering)."""
