"""Settings as the documents and the design write them."""

DOCUMENT_001 = """
models:
  gpt-4o:
    provider: openai
    engine: gpt-4o
    input_cost: 0.0000025   # USD per token
    output_cost: 0.00001
    max_tokens: 8192
defaults:
  self_reflection: o3-pro
  vitals: gpt-4o
  experiment: o3-pro
budget:
  daily_limit_usd: 20
  hard_stop: true          # Block requests when limit reached
  warning_threshold: 0.8   # Warn at 80% usage
"""
DOCUMENT_002 = """
target_url: https://api.openai.com
limits:
  requests_per_second: 10      # 10 requests per second per API key
  burst: 20                    # Allow bursts up to 20 requests
  model_tokens_per_minute: 50000  # 50k tokens per minute per API key
"""
DOCUMENT_003 = """
router:
  default_strategy: auto
  preferred_providers: [anthropic, openai]
  blocked_providers: []
  enable_fallbacks: true
  max_fallback_attempts: 3
  fallback_delay_ms: 1000
  max_cost_per_request: 1.00
  cost_alert_threshold: 0.50
  enable_cost_optimization: true
  cache_enabled: true
  cache_ttl_seconds: 3600
  load_balancing_enabled: true
"""
DESIGN = """
providers:
  openai:   {dialect: openai, base_url: https://api.openai.com/v1, api_key: ${OPENAI_API_KEY}}
  eu:       {base_url: https://NAME.openai.azure.com/openai/v1, api_key: ${EU_KEY}, region: eu}
  local:    {dialect: openai, base_url: http://127.0.0.1:8001/v1}
models:
  gpt-4o:
    provider: openai
    engine: gpt-4o-2024-08-06
    timeout: 60
    fallbacks: [claude-3-sonnet]
  chat:
    targets: [{provider: local, engine: llama, weight: 90}, {provider: openai, weight: 10}]
"""
