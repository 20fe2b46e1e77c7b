// What a configuration was refused for.

import { ConfigError } from '../../src/config/error.js';

export function errorOf(run: () => unknown): ConfigError {
  try {
    run();
  } catch (thrown) {
    if (thrown instanceof ConfigError) return thrown;
    throw thrown;
  }
  throw new Error('this configuration should have been refused');
}

/** "path: given" of each problem. */
export function problems(run: () => unknown): string[] {
  return errorOf(run).problems.map(({ path, given }) => `${path}: ${given ?? 'missing'}`);
}
