/** Where worker ids come from; may be written in JavaScript. */
export interface IWorkerIdAdapter {
  /** An id from 0 to 31 that no other live node of the app has. */
  getWorkerId(): Promise<number>;
  /** Gives the id back. */
  release(): Promise<void>;
}
