// An agent in a process of its own, which may be killed at any moment: it tells its parent what it lets out, and how the
// domain fares; and is told to switch it over, or to try it.

import { fileURLToPath } from 'node:url';
import { parseCluster } from '../../src/config/cluster.js';
import { codeOf } from '../../src/errors.js';
import type { AgentDependencies } from '../../src/report/dependencies.js';
import type { AgentService, SwitchoverReport } from '../../src/report/reports.js';
import { createAgent } from '../../src/service/agent.js';

export interface AgentChildStart {
  readonly cluster: unknown;
  readonly host: string;
}

export type AgentChildMessage =
  | { readonly kind: 'said'; readonly text: string }
  | { readonly kind: 'fares'; readonly fares: string }
  | { readonly kind: 'switched'; readonly report: SwitchoverReport }
  | { readonly kind: 'not-switched'; readonly code: string }
  /** `outcome`: lives, dead, or the code of an error. */
  | { readonly kind: 'tried'; readonly outcome: string }
  /** Of one that is more than this. */
  | { readonly kind: 'more'; readonly message: unknown };

export type AgentChildRequest = 'switch over' | 'try';

/** Longer than any test. */
const TRIAL_SECONDS = 3600;

/** As often as one who waits for it looks. */
const LOOK_MS = 5;

export const tell = (message: AgentChildMessage) => process.send?.(message);

/** What one that is more than this has of its own. */
export interface MoreThanAnAgent {
  readonly dependencies?: (start: AgentChildStart) => Partial<AgentDependencies>;
  readonly created?: (agent: AgentService) => void;
  readonly asked?: (request: object) => void;
}

export function beAgent({ dependencies, created, asked }: MoreThanAnAgent = {}): void {
  process.once('message', (message) => {
    const start = message as AgentChildStart;
    const agent = createAgent(parseCluster(start.cluster, start.host), {
      openConsole: () => ({
        write: (bytes) => tell({ kind: 'said', text: Buffer.from(bytes).toString('latin1') }),
        close: () => undefined,
      }),
      ...dependencies?.(start),
    });
    created?.(agent);
    tellHowItFares(agent);
    process.on('message', (request: AgentChildRequest | object) => {
      if (typeof request === 'object') asked?.(request);
      else heed(agent, request);
    });
    void agent.start();
  });
  // Whose parent is gone is of no use.
  process.once('disconnect', () => process.exit());
}

function tellHowItFares(agent: AgentService): void {
  let told = '';
  setInterval(() => {
    const [status] = agent.statuses();
    if (!status) return;
    const { phase = 'none', link } = status;
    const fares = link === 'replicating' ? `${phase}, replicating` : phase;
    if (fares !== told) tell({ kind: 'fares', fares });
    told = fares;
  }, LOOK_MS);
}

function heed(agent: AgentService, request: AgentChildRequest): void {
  if (request === 'try') {
    agent.testFailover('web', { seconds: TRIAL_SECONDS }).then(
      ({ lives }) => tell({ kind: 'tried', outcome: lives ? 'lives' : 'dead' }),
      (error: unknown) => tell({ kind: 'tried', outcome: codeOf(error) }),
    );
    return;
  }
  agent.switchover('web').then(
    (report) => tell({ kind: 'switched', report }),
    (error: unknown) => tell({ kind: 'not-switched', code: codeOf(error) }),
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) beAgent();
