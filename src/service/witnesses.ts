// Which witness says who may run a domain: the place where a configuration's `kind` becomes code.

import { mkdirSync, readFileSync } from 'node:fs';
import type { AgentConfig } from '../config/agent.js';
import type { RegisterWitness } from '../failover/register.js';
import { createEtcdWitness } from '../failover/witnesses/etcd/etcd.js';
import { createFenceWitness } from '../failover/witnesses/fence/fence.js';
import { createFileWitness } from '../failover/witnesses/file/file.js';
import { createNoneWitness } from '../failover/witnesses/none.js';

export interface OpenedWitness {
  readonly witness: RegisterWitness;
  /** It is one for all hosts; else each host has its own registers. */
  readonly shared: boolean;
}

/**
 * `hasLetGo`: that host has said that it neither runs nor holds the domain.
 * @throws WitnessError BAD_OPTIONS; Node's system error for a file that cannot be read, or a directory that cannot be made
 */
export function openWitness(
  { witness, host, hosts }: Pick<AgentConfig, 'witness' | 'host' | 'hosts'>,
  hasLetGo: (domain: string, host: string) => boolean,
): OpenedWitness {
  switch (witness.kind) {
    case 'etcd': {
      const { endpoints, prefix, timeoutMs: requestTimeoutMs, tls, user } = witness;
      return {
        shared: true,
        witness: createEtcdWitness({
          ...{ endpoints, prefix, requestTimeoutMs },
          // Read anew for each connection: they are renewed while we run.
          ...(tls && { tls: () => filesOf(tls) }),
          ...(user && {
            user: { name: user.name, password: readFileSync(user.passwordFile, 'utf8').trimEnd() },
          }),
        }),
      };
    }
    case 'file':
      return {
        shared: true,
        witness: createFileWitness({
          directory: witness.directory,
          requestTimeoutMs: witness.timeoutMs,
        }),
      };
    case 'fence': {
      const { command, timeoutMs, attempts, retryDelayMs, directory } = witness;
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      const peers = [...hosts.keys()].filter((name) => name !== host);
      return {
        shared: false,
        witness: createFenceWitness({
          ...{ command, timeoutMs, attempts, retryDelayMs, directory, host, peers },
          hasLetGo,
        }),
      };
    }
    case 'none':
      return { shared: false, witness: createNoneWitness() };
  }
}

function filesOf({ ca, cert, key }: { ca: string; cert?: string | undefined; key?: string | undefined }) {
  return {
    ca: readFileSync(ca),
    ...(cert !== undefined && { cert: readFileSync(cert) }),
    ...(key !== undefined && { key: readFileSync(key) }),
  };
}
