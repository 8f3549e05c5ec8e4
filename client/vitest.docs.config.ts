import { defineConfig } from 'vitest/config';

export default defineConfig({ test: { include: ['test/docs/**/*.test.ts'], testTimeout: 90_000, hookTimeout: 60_000 } });
