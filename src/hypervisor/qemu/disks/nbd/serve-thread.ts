// A thread that serves exports, between its first line and its end.

import { parentPort, workerData } from 'node:worker_threads';
import { asError } from '../../../../errors.js';
import type { Post, ServerRequest, ServerStart } from './messages.js';
import type { NbdService } from './service.js';

/** Serves until the thread is ended. `make`: what is served by. */
export async function serveThread(make: (start: ServerStart, post: Post) => NbdService): Promise<void> {
  if (!parentPort) throw new Error('this is for a worker thread');
  const port = parentPort;
  const post: Post = (news, transfer) => port.postMessage(news, transfer);
  const service = make(workerData as ServerStart, post);
  try {
    await service.listen();
  } catch (error) {
    post({ kind: 'refused', reason: asError(error).message }, []);
    return;
  }
  port.on('message', (request: ServerRequest) => service.take(request));
  post({ kind: 'listening' }, []);
}
