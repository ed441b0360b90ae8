//! Upstream MCP servers: configuration, connections, and what is known of them.
