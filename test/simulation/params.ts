// What differs from run to run beside the faults: how fast everything is, and what hosts there are. All from the seed.

import { pick, type Random } from '../support/random.js';
import type { Params } from './host/cluster.js';

export function drawParams(random: Random): Params {
  const heartbeatTimeoutMs = pick(random, [500, 1000, 1000, 2000]);
  const connectTimeoutMs = pick(random, [500, 1000]);
  return {
    heartbeatIntervalMs: heartbeatTimeoutMs / pick(random, [4, 5, 10]),
    heartbeatTimeoutMs,
    checkpointIntervalMs: pick(random, [100, 200, 300]),
    windowEpochs: pick(random, [1, 1, 2, 3]),
    acknowledgeTimeoutMs: 5000,
    reconnectWindowMs: pick(random, [0, 100, 300, 1000]),
    redialMinMs: 50,
    redialMaxMs: pick(random, [500, 2000]),
    connectTimeoutMs,
    witnessTimeoutMs: pick(random, [300, 1000]),
    latencyMs: pick(random, [1, 5, 20]),
    makeMs: pick(random, [10, 100, 400]),
    startMs: pick(random, [5, 50, 200]),
    copyMs: pick(random, [50, 200, 800]),
    pauseMs: pick(random, [2, 10]),
    commitMs: pick(random, [2, 10, 60]),
    gateMs: pick(random, [0, 0, 0, 3]),
    tickMs: pick(random, [20, 40]),
    bound: random() < 0.3,
    attached: random() < 0.12,
    refusesLast: random() < 0.1 ? pick(random, ['goes-back', 'is-lost']) : null,
  };
}

export function drawHosts(random: Random): readonly string[] {
  return random() < 0.6 ? ['A', 'B'] : ['A', 'B', 'C'];
}
