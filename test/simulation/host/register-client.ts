// How one part of an agent asks the witness: a read is tried once, a write until it is known what became of it
// (failover/settle.ts, whose judgement this is).

import type { Register, RegisterWrite } from '../../../src/failover/register.js';
import { settledBy, type Settled } from '../../../src/failover/settle.js';
import { backoffMs, spreadMs } from '../../../src/flow/backoff.js';
import type { Process } from '../world/process.js';
import type { Reply, Request } from '../world/witness.js';
import type { Cluster } from './cluster.js';

const BACKOFF = { firstMs: 50, maxMs: 2000 };

export class RegisterClient {
  /** Whoever asked has left: nothing is answered any more. */
  aborted = false;
  readonly #cluster: Cluster;
  readonly #host: string;
  readonly #process: Process;

  constructor(cluster: Cluster, host: string, process: Process) {
    this.#cluster = cluster;
    this.#host = host;
    this.#process = process;
  }

  /** Undefined: it cannot be asked. */
  read(done: (register: Register | null | undefined) => void): void {
    this.#ask({ kind: 'read' }, (reply) =>
      done(typeof reply === 'object' && reply ? reply.register : undefined),
    );
  }

  settle(write: RegisterWrite, done: (settled: { won: boolean; register: Register | null }) => void): void {
    const { mode, owner, standby, stream } = write.claim;
    const claim = mode === 'alone' ? `alone/${owner}` : `paired/${owner},${standby ?? ''},${stream ?? ''}`;
    const { story, plant } = this.#cluster;
    story?.tell(this.#host, `writes ${claim} after generation ${write.expected?.generation ?? 0}`);
    const settled = ({ won, register }: Pick<Settled, 'won'> & { register: Register | null }): void => {
      story?.tell(this.#host, `${claim}: ${won ? 'won' : 'lost'}`);
      done({ won, register });
    };
    let step: Request = { kind: 'write', write };
    let failures = 0;
    const attempt = (): void =>
      this.#ask(step, (reply) => {
        const outcome = reply === null ? null : settledBy(write, reply);
        if (outcome !== null && typeof outcome === 'object') {
          settled(outcome);
        } else if (outcome === 'read') {
          step = { kind: 'read' };
          attempt();
        } else if (plant === 'lost-reply' && reply === null) {
          settled({ won: false, register: null });
        } else {
          if (outcome === 'contradiction') step = { kind: 'write', write };
          story?.tell(this.#host, `${claim}: not known yet`);
          const waitMs = backoffMs(BACKOFF.firstMs, BACKOFF.maxMs, failures++);
          this.#process.after(spreadMs(waitMs, this.#cluster.random()), attempt);
        }
      });
    attempt();
  }

  #ask(request: Request, reply: (reply: Reply) => void): void {
    if (this.aborted) return;
    const { witness, params } = this.#cluster;
    witness.ask(this.#host, this.#process, request, params.witnessTimeoutMs, (answer) => {
      if (!this.aborted) reply(answer);
    });
  }
}
