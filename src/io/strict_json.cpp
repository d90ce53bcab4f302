// strict_json
